"""Schemas as Kubernetes wants them in a custom resource definition, out of the models.

Source: "structural schemas" in the reference of CustomResourceDefinition v1: no `$ref`, no `null`, no
`additionalProperties: false`; what may hold anything says so.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from dataset_controller.quantities import DURATION_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

Schema = dict[str, Any]
_KEPT = (
    "type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
    "x-kubernetes-int-or-string",
)  # fmt: skip


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the schema of a model, as the part of a definition that describes its fields."""
    document = model.model_json_schema(by_alias=True)
    texts = {each.__name__: field_texts(each) for each in _models(model)}
    return _Flattening(document.get("$defs", {}), texts).flatten(document)


class _Flattening:
    """Turns one document of JSON schema into a schema without references.

    Args:
        definitions: What it refers to.
        texts: What each field of each model means.
    """

    def __init__(self, definitions: dict[str, Schema], texts: dict[str, dict[str, str]]) -> None:
        self._definitions = definitions
        self._texts = texts

    def flatten(self, node: Schema) -> Schema:
        """Return a node with what it refers to."""
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            return self._with_default(self.flatten(self._definitions[name]), node)
        options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
        if len(options) == 1:
            return self._with_default(self.flatten(options[0]), node)
        if options:
            return self._with_default(_one_of_types(options), node)
        kept = {key: node[key] for key in _KEPT if key in node}
        if "const" in node:
            kept["enum"] = [node["const"]]
        if "exclusiveMinimum" in node:
            kept.update({"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True})
        if "exclusiveMaximum" in node:
            kept.update({"maximum": node["exclusiveMaximum"], "exclusiveMaximum": True})
        if node.get("type") == "integer":
            kept["format"] = "int64"
        elif node.get("type") == "array":
            kept["items"] = self.flatten(node["items"])
        elif node.get("type") == "object":
            kept.update(self._object(node))
        elif "type" not in node and "x-kubernetes-int-or-string" not in node and "enum" not in kept:
            kept["x-kubernetes-preserve-unknown-fields"] = True
        return self._with_default(kept, node)

    def _object(self, node: Schema) -> Schema:
        if "properties" not in node:
            values = node.get("additionalProperties")
            if isinstance(values, dict) and values:
                return {"additionalProperties": self.flatten(values)}
            return {"x-kubernetes-preserve-unknown-fields": True}
        texts = self._texts.get(node.get("title", ""), {})
        properties = {}
        for name, field in node["properties"].items():
            properties[name] = self.flatten(field)
            if name in texts:
                properties[name]["description"] = texts[name]
        found: Schema = {"properties": properties}
        if node.get("required"):
            found["required"] = sorted(node["required"])
        return found

    @staticmethod
    def _with_default(schema: Schema, node: Schema) -> Schema:
        default = node.get("default")
        if default in (None, "", {}, []):
            return schema
        if schema.get("pattern") == DURATION_PATTERN and not isinstance(default, str):
            default = f"{default:g}s"
        if isinstance(default, dict):
            default = {}  # the fields have defaults of their own
        return {**schema, "default": default}


def _one_of_types(options: list[Schema]) -> Schema:
    if {option.get("type") for option in options} == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True}
    raise TypeError(f"a structural schema cannot say one of {options}")


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a model and all that its fields lead to."""
    from pydantic import BaseModel

    seen: set[type[BaseModel]] = set()
    waiting: list[Any] = [model]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in seen:
                seen.add(kind)
                yield kind
                waiting += [field.annotation for field in kind.model_fields.values()]
        else:
            waiting += getattr(kind, "__args__", ())


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below a model's fields, and below those that it inherits, by the names that users write."""
    texts = {}
    for kind in reversed(model.__mro__):
        if sys.modules.get(kind.__module__) is None or not kind.__module__.startswith(__package__):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for before, after in zip(body.body, body.body[1:], strict=False):
            if not isinstance(before, ast.AnnAssign) or not isinstance(before.target, ast.Name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                field = model.model_fields.get(before.target.id)
                if field is not None:
                    texts[field.alias or before.target.id] = " ".join(str(after.value.value).split())
    return texts
