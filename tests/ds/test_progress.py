from __future__ import annotations

import io
from typing import Any

import pytest

from ds import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Display:
    """A display that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.task_ids: list[int] = []

    def add_task(self, description: str, **fields: Any) -> None:
        self.task_ids.append(len(self.task_ids))
        self.said.append((description, fields))

    def update(self, task: int, **changes: Any) -> None:
        self.said.append((task, changes))

    def start(self) -> None:
        self.said.append("start")

    def stop(self) -> None:
        self.said.append("stop")


@pytest.mark.parametrize(("patience", "is_shown"), [(3600.0, False), (0.0, True)])
def test_what_takes_a_moment_shows_nothing(patience: float, is_shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", patience)
    display = Display()
    with progress.LateProgress(lambda: display) as bar:  # type: ignore[arg-type, return-value]
        first, second = bar.add_task("adding"), bar.add_task("listing", rate="")
        bar.update(second, completed=5, rate="1/s")
        bar.update(first, completed=7)
    if not is_shown:
        assert display.said == []
        return
    listing = ("listing", {"total": None, "completed": 5, "rate": "1/s"})
    adding = ("adding", {"total": None, "completed": 0})
    assert display.said == [adding, listing, "start", (0, {"completed": 7}), "stop"]


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 0.0)
    with progress.bytes_progress() as bar:
        bar.update(bar.add_task("adding"), completed=1)


@pytest.mark.parametrize("make", [progress.bytes_progress, progress.count_progress])
def test_real_displays_begin_late(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 0.0)
    with make() as bar:
        bar.update(bar.add_task("adding things", rate=""), completed=1)
    assert "adding things" in terminal.getvalue()
