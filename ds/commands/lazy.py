"""Commands whose modules are loaded when they are called: help and mistakes are answered at once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from ds.commands.coercing import SparingCommand


class LazyCommand(TyperCommand):
    """A name and a line of help; its callback returns an application of one command, which it becomes.

    Attributes:
        before_loading: What this process does before it loads a command.
        before_running: What it does when the command is loaded.
    """

    before_loading: ClassVar[list[Callable[[], None]]] = []
    before_running: ClassVar[list[Callable[[], None]]] = []

    def make_context(self, info_name: str | None, args: list[str], *options: Any, **extra: Any) -> Any:
        """Become the command."""
        assert self.callback is not None
        while self.before_loading:
            self.before_loading.pop()()
        context = typer.main.get_command(self.callback()).make_context(info_name, args, *options, **extra)
        while self.before_running:
            self.before_running.pop()()
        return context


def add_lazily(
    app: typer.Typer, name: str, place: str, help_line: str, *, kind: type[TyperCommand] | None = None
) -> None:
    """Add a command that lies in this package.

    Args:
        app: Where to.
        name: What it is called.
        place: Its `module:function`.
        help_line: The first line of its docstring.
        kind: What becomes of it.
    """

    def load() -> typer.Typer:
        module, _, function = place.partition(":")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=kind or SparingCommand)(getattr(import_module(f"ds.commands.{module}"), function))
        return alone

    app.command(name, cls=LazyCommand, help=help_line)(load)
