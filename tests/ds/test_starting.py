"""What `ds` loads before it does anything: not the libraries that it does not need."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from ds.commands.table import COMMANDS

if TYPE_CHECKING:
    from tests.ds.shop import Shop

LOADED = """
import sys, ds.cli
sys.argv = ["ds", *sys.argv[1:]]
try:
    ds.cli.main()
finally:
    import json
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
OWN = {"cache_runtime", "dataset_controller", "loaders", "sources", "versioning"}
SLOW = {"aiohttp", "botocore", "obstore", "pandas", "prometheus_client", "s3fs", "torch"}


def loaded(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    modules = json.loads(done.stderr.splitlines()[-1])
    return done.returncode, {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("arguments", ["--help", "cache --help", "--version", "nonsense"])
def test_help_and_mistakes_load_no_package(arguments: str) -> None:
    code, modules = loaded(*arguments.split())
    assert code == (2 if arguments == "nonsense" else 0)
    assert not modules & (SLOW | OWN | {"fsspec", "numpy", "pyarrow"})  # Typer itself loads pydantic


@pytest.mark.parametrize("arguments", ["status", "ls", "load --dry-run", "cache status"])
def test_commands_load_no_library_that_they_do_not_need(arguments: str, shop: Shop) -> None:
    shop.write("a/b", b"1", branch="main")
    code, modules = loaded(*arguments.split())
    assert code == 0
    assert not modules & SLOW


@pytest.mark.parametrize("group", COMMANDS)
def test_help_says_what_the_commands_say(group: str) -> None:
    for name, (place, line) in COMMANDS[group].items():
        module, _, function = place.partition(":")
        command = getattr(import_module(f"ds.commands.{module}"), function)
        assert (inspect.getdoc(command) or "").splitlines()[0] == line, f"ds {group} {name}"
