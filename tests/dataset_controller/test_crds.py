"""Custom resource definitions: what a cluster is told agrees with what the models accept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from dataset_controller.crds import KINDS, definitions
from dataset_controller.quantities import parse_duration
from dataset_controller.schema import structural_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

FORBIDDEN = {"$ref", "$defs", "anyOf", "title", "const", "additionalItems"}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema of a schema."""
    yield schema
    for child in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(child, dict):
            yield from nodes(child)


@pytest.mark.parametrize("definition", definitions(), ids=lambda each: each["spec"]["names"]["kind"])
def test_every_schema_is_structural_and_its_defaults_fit_it(definition: dict[str, Any]) -> None:
    json.dumps(definition)
    (version,) = definition["spec"]["versions"]
    for node in nodes(version["schema"]["openAPIV3Schema"]):
        assert not FORBIDDEN & node.keys()
        assert "type" in node or "x-kubernetes-int-or-string" in node or "x-kubernetes-preserve-unknown-fields" in node
        if "default" in node:
            jsonschema_rs.validate(plain(node), node["default"])


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without what OpenAPI 3.0 writes in another way than JSON schema."""
    return {key: value for key, value in schema.items() if not key.startswith(("x-", "exclusive", "default"))}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_column_shows_a_field_that_there_is(kind: Any) -> None:
    definition = next(each for each in definitions() if each["spec"]["names"]["kind"] == kind.name)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for column in kind.columns:
        if not column.path.startswith((".metadata", ".status.conditions")):
            node = schema
            for step in column.path.strip(".").split("."):
                node = node["properties"][step]
            assert node["type"] == ("string" if column.kind == "date" else column.kind)


def test_fields_are_described_and_durations_keep_their_form() -> None:
    runtime = next(kind for kind in KINDS if kind.name == "CacheRuntime")
    spec = structural_schema(runtime.model)["properties"]["spec"]
    assert spec["properties"]["drainTimeout"]["default"] == "600s"
    assert spec["properties"]["tiers"]["items"]["properties"]["capacity"]["x-kubernetes-int-or-string"]
    assert "hand on" in spec["properties"]["drainTimeout"]["description"]
    assert spec["required"] == ["tiers"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("2d", 172800), (5, 5), ("250ms", 0.25)])
def test_durations_are_seconds(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", -1, True, "1w", "1 s", "nan", float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)
