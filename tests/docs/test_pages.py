from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote

import pytest
from pydantic import BaseModel

from dataset_controller import CacheRuntime, Dataset
from ds.exits import Exit
from sources import azure, gcs
from sources.dvc import naming
from sources.hdfs import options as hdfs_options
from sources.http import options as http_options
from sources.listing import journal
from sources.nfs import options as nfs_options
from sources.s3 import options as s3_options
from tests.docs.markdown import ROOT, documents, tracked_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# split, so that this file does not mention what it looks for
_UNWANTED = ("../" + "shared", "/work/" + "shared", "pypi" + ".org", "files." + "pythonhosted", "proxy." + "golang")


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field as it is written in YAML: `spec.mounts[].uri`."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = nested_model(field.annotation)
        yield path
        if inner is not None:
            yield from fields_of(inner, path + ("[]." if "list[" in str(field.annotation) else "."))


def nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested_model(part))), None)


@pytest.mark.parametrize("model", [Dataset, CacheRuntime])
def test_every_field_of_a_manifest_is_in_the_reference(model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "reference" / "dataset-yaml.md").read_text()
    section = page.partition(f"\n## {model.__name__}\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    fields = set(fields_of(model))
    holders = {field for field in fields if any(other.startswith((f"{field}.", f"{field}[]")) for other in fields)}
    assert listed - fields == set()
    assert fields - holders - listed == set()


def test_the_synopses_are_those_of_the_commands() -> None:
    page = ROOT / "docs" / "reference" / "commands.md"
    updated = runpy.run_path(str(ROOT / "docs" / "generate_commands.py"))["updated_page"](page.read_text())
    assert updated == page.read_text(), "stale; run: python docs/generate_commands.py"


def test_the_tables_of_kubernetes_objects_are_those_of_the_models() -> None:
    page = ROOT / "docs" / "reference" / "kubernetes.md"
    updated = runpy.run_path(str(ROOT / "docs" / "generate_crds.py"))["updated_page"](page.read_text())
    assert updated == page.read_text(), "stale; run: python docs/generate_crds.py"


def test_every_exit_code_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    section = page.partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == {int(code) for code in Exit}


OPTIONS: dict[str, tuple[str, ...]] = {
    "s3://": s3_options._OPTIONS,
    "gs://": gcs._OPTIONS,
    "az://, abfs://": azure._OPTIONS,
    "hdfs://": hdfs_options._KNOWN,
    "nfs://": nfs_options._KNOWN,
    "http://, https://": http_options._KNOWN,
    "dvc://": naming._OPTIONS,
}


@pytest.mark.parametrize("scheme", OPTIONS)
def test_every_option_of_a_source_is_in_the_reference(scheme: str) -> None:
    page = (ROOT / "docs" / "reference" / "sources.md").read_text()
    section = re.split(r"\n#+ ", page.partition(f"\n### {scheme}\n")[2])[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(OPTIONS[scheme])


def test_the_tables_of_a_journal_are_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "sources.md").read_text()
    assert f"```sql{journal._TABLES}```" in page
    assert journal._FORMAT in page


def test_every_relative_link_leads_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in documents()
        for link in _LINK.findall(_FENCED.sub("", document.read_text()))
        if not link.startswith(("http://", "https://", "mailto:")) and not leads_somewhere(document, link)
    ]
    assert broken == []


def leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = unquote(link).partition("#")
    target = document.parent / path if path else document
    if not target.exists():
        return False
    return not anchor or anchor in {anchor_of(title) for title in _HEADING.findall(target.read_text())}


def anchor_of(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_no_file_mentions_what_only_one_machine_has() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # no text
        found += [f"{path.relative_to(ROOT)}: {word}" for word in _UNWANTED if word in text]
    assert found == []
