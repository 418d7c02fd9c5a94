"""What the command line says, as the command takes it, without pydantic, which Typer loads for the first argument.

Typer's own way is taken for all but text, whole numbers and what was not given: choices, paths, whatever is wrong, and
whatever a later version of Typer does otherwise.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class SparingCommand(TyperCommand):
    """A command whose arguments are converted without pydantic where that makes no difference."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, that of the help too."""
        return _spared(super().get_params(ctx))


class SparingGroup(TyperGroup):
    """A group whose arguments are converted without pydantic where that makes no difference."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, that of the help too."""
        return _spared(super().get_params(ctx))


class _Sparing:
    """Stands for the conversion of one parameter, and leaves to Typer what it does not know."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a value as the command takes it, as Typer's `RuntimeParam` does."""
        is_many = param.multiple or param.nargs == -1
        if value is None:
            return () if is_many else None
        descriptor = self._parameter.type_descriptor
        kind, about = descriptor.annotation, descriptor.parameter_info
        if about.parser is None:
            if kind is str and not is_many and _is_text(value):
                return value
            if kind == list[str] and type(value) in (list, tuple) and all(_is_text(each) for each in value):
                return list(value)
            if kind is int and not is_many and _is_whole(value) and _lies_within(int(value), about.min, about.max):
                return int(value)
        self._parameter._runtime_param = None
        return self._parameter.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _spared(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", parameter) is None:
            parameter._runtime_param = _Sparing(parameter)
    return parameters


def _is_text(value: Any) -> bool:
    """Say whether a value is text that can be written as UTF-8; an argument may be other bytes, which Typer refuses."""
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is str and len(value) < 16 and value.isascii() and value.isdecimal())


def _lies_within(value: int, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
