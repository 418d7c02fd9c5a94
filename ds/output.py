"""What goes to stdout and stderr: data to the one, everything else to the other."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def errors() -> Console:
    """Return the console of stderr: messages, progress."""
    from rich.console import Console  # it takes a while, and most commands print plain text

    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def print_json(schema: str, data: Any) -> None:
    """Print one document that says what it is; never colours."""
    document = {"schema": f"ds.{schema}.v1", "data": data}
    is_unicode = sys.stdout.encoding.lower().startswith("utf")
    sys.stdout.write(json.dumps(document, ensure_ascii=not is_unicode, indent=2) + "\n")


def print_record(record: Any) -> None:
    """Print one JSON object on a line of its own (NDJSON)."""
    is_unicode = sys.stdout.encoding.lower().startswith("utf")
    sys.stdout.write(json.dumps(record, ensure_ascii=not is_unicode) + "\n")


def print_text(text: str = "") -> None:
    """Print a line of data as it is."""
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print rows under headings, as kubectl does; cells are never cut."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 10_000
    Console(highlight=False, markup=False, emoji=False, width=width).print(table, soft_wrap=True)


def human_bytes(count: float) -> str:
    """Write a number of bytes in IEC units: `1.5 MiB`."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def plural(count: int, noun: str) -> str:
    """Write `1 file`, `1,797 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
