"""From YAML text to objects, with errors that name the field and the line."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from dataset_controller.errors import ManifestError
from dataset_controller.model import API_VERSION, KINDS, Resource
from dataset_controller.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from dataset_controller.operations import Operation

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def parse_manifest(text: str, *, source: str, variables: Mapping[str, str]) -> list[Resource]:
    """Read every document of a YAML file of Datasets and CacheRuntimes. Arguments and errors as in `parse_objects`."""
    return [document.resource(KINDS) for document in _documents(text, source, variables)]


def parse_objects(text: str, *, source: str, variables: Mapping[str, str]) -> list[Resource | Operation]:
    """Read every document of a YAML file.

    `${NAME}` and `${NAME:-default}` in values are replaced from `variables`.

    Args:
        text: The file's content.
        source: Its name, for messages.
        variables: What `${NAME}` may refer to.

    Raises:
        ManifestError: For the first thing that is wrong; carries file, line and field.
    """
    return [document.resource({**KINDS, **OPERATIONS}) for document in _documents(text, source, variables)]


def fault_of(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Return the field of an object that a model refused, and why: the words of all who validate."""
    first = _first(error)
    return _field(first["loc"]), _reason(first, model)


def _first(error: ValidationError) -> ErrorDetails:
    """Return the fault to tell: a misspelt field is also a missing one, and what was written helps more."""
    found = error.errors(include_url=False)
    return next((item for item in found if item["type"] == "extra_forbidden"), found[0])


def _documents(text: str, source: str, variables: Mapping[str, str]) -> list[_Document]:
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
        documents = [_Document(node, source, variables) for node in nodes]
    except RecursionError as error:
        raise ManifestError("it is nested too deeply, or holds itself", source=source) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ManifestError(f"not YAML: {problem}", source=source, line=mark.line + 1 if mark else None) from error
    if not documents:
        raise ManifestError("the file holds no object; expected kind: Dataset", source=source)
    return documents


class _Document:
    """A composed YAML document: plain data, and the line that each field came from."""

    def __init__(self, node: yaml.Node, source: str, variables: Mapping[str, str]) -> None:
        self.source = source
        self._node = node
        self._variables = variables
        self.data = self._plain(node)

    def resource(self, kinds: Mapping[str, type[Any]]) -> Any:
        """Return the object that it declares, of one of these kinds. Raises as `parse_objects`."""
        data = self.data
        if not isinstance(data, dict):
            raise ManifestError(
                "expected an object with apiVersion, kind, metadata and spec", source=self.source, line=1
            )
        model = kinds.get(str(data.get("kind")))
        if model is None or data.get("apiVersion") != API_VERSION:
            field = "kind" if model is None else "apiVersion"
            line = self.line_of([field])
            raise ManifestError(_unknown(data, field, kinds), source=self.source, line=line, field=field)
        try:
            return model.model_validate(data)
        except ValidationError as error:
            first = _first(error)
            field, reason = fault_of(error, model)
            line = self.line_of(first["loc"])
            raise ManifestError(reason, source=self.source, line=line, field=field) from error

    def line_of(self, path: Sequence[str | int]) -> int:
        """Find the deepest node on the path that exists, the key's line where it is a key."""
        node, line = self._node, self._node.start_mark.line
        for step in path:
            found = self._child(node, step)
            if found is None:
                break
            node, line = found
        return int(line) + 1

    def _child(self, node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    return value, key.start_mark.line
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            return node.value[step], node.value[step].start_mark.line
        return None

    def _plain(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            plain: dict[Any, Any] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ManifestError("a field's name is a word", source=self.source, line=self._line(key))
                if key.value in plain:
                    raise ManifestError(
                        "this field is there twice", source=self.source, line=self._line(key), field=key.value
                    )
                plain[key.value] = self._plain(value)
            return plain
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item) for item in node.value]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        text = _VARIABLE.sub(lambda match: self._variable(match, node), node.value)
        if text != node.value or node.tag == "tag:yaml.org,2002:timestamp":
            return text
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (
            yaml.YAMLError,
            ValueError,
            LookupError,
            AttributeError,
        ) as error:  # what the constructors of tags raise
            reason = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
            raise ManifestError(reason, source=self.source, line=self._line(node)) from error

    def _variable(self, match: re.Match[str], node: yaml.Node) -> str:
        value = self._variables.get(match["name"], match["default"])
        if value is None:
            reason = f"${{{match['name']}}} is not set; export it, or write ${{{match['name']}:-default}}"
            raise ManifestError(reason, source=self.source, line=self._line(node))
        return value

    @staticmethod
    def _line(node: yaml.Node) -> int:
        return int(node.start_mark.line) + 1


def _unknown(data: dict[Any, Any], field: str, kinds: Mapping[str, Any]) -> str:
    if field == "kind":
        return f"expected {' or '.join(kinds)}, found {data.get(field)!r}"
    found = str(data.get(field))
    if found.startswith(f"{API_VERSION.split('/')[0]}/"):
        return f"this forebay knows {API_VERSION}, the file is of {found}: install a newer one, or write the older form"
    return f"expected {API_VERSION}, found {data.get(field)!r}"


def _field(path: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _reason(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Say it in the file's words rather than in the validator's."""
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1])
        near = get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown field; did you mean {near[0]!r}?" if near else f"unknown field; known: {', '.join(known)}"
    if error["type"] == "missing":
        return "this field is required"
    return error["msg"].removeprefix("Value error, ")


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Name the fields of the model that a path leads to, through the JSON schema that describes them all."""
    schema = model.model_json_schema()
    here: dict[str, Any] = schema
    for step in path:
        here = here["items"] if isinstance(step, int) else here["properties"][step]
        reference = here.get("$ref") or next(
            (option["$ref"] for option in here.get("anyOf", []) if "$ref" in option), None
        )
        if reference:
            here = schema["$defs"][reference.rpartition("/")[2]]
    return sorted(here.get("properties", {}))
