"""Forebay's main job on real data with a real S3 server; `make demo` runs it, and README.md beside it tells the same.

Everything happens in a temporary directory that is removed at the end, also on Ctrl-C.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from examples.digits.digits import write_rotated
from examples.digits.serve import fill, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.weed import S3Server

DS = str(Path(sys.executable).with_name("ds"))
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass
class Narrator:
    """Tells each step, times it, and counts what the S3 server was asked meanwhile."""

    server: S3Server
    rows: list[tuple[str, float, int, str]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        console.print(f"\n[bold cyan]{len(self.rows) + 1}. {title}[/bold cyan]")
        read_from: list[str] = []
        requests, start = self.server.requests(), time.monotonic()
        yield read_from
        seconds = time.monotonic() - start
        asked = self.server.requests() - requests
        self.rows.append((title, seconds, asked, ", ".join(read_from)))
        console.print(f"[dim]{seconds:.1f} s, {asked} S3 requests[/dim]")

    def table(self) -> Table:
        table = Table(title="What was read from where, and how long it took", title_justify="left")
        for column, justify in (("step", "left"), ("seconds", "right"), ("S3 requests", "right"), ("bytes", "left")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        for title, seconds, asked, read_from in self.rows:
            table.add_row(title, f"{seconds:.1f}", f"{asked:,}", read_from)
        return table


def ds(command: str, *, expect: int = 0) -> str:
    """Run one `ds` command as a user would type it, show it and what it says."""
    console.print(f"[bold green]$ ds {command}[/bold green]")
    done = subprocess.run([DS, *shlex.split(command)], stdout=subprocess.PIPE, text=True, check=False, timeout=300)
    sys.stdout.write("".join(f"  {line}\n" for line in done.stdout.splitlines()))
    if done.returncode != expect:
        raise SystemExit(f"ds {command} ended with {done.returncode}, expected {expect}")
    return done.stdout


def run(directory: Path, server: S3Server) -> None:
    from examples.digits.train import train  # torch: seconds that a failing start need not wait for

    tell = Narrator(server)
    with tell.step("Data: 1,797 PNGs into S3, a JSON for each into a directory that stands for NFS"):
        count = fill(server)
        console.print(f"{count:,} images in s3://digits/digits, {count:,} labels in $DIGITS_NFS/labels")
    with tell.step("Declare the dataset"):
        ds("apply -f examples/digits/dataset.yaml")
        ds("get")
    with tell.step("Version 1, zero copy: entries point at the source objects, pinned by etag or mtime and size"):
        ds("import")
        ds("status", expect=1)
        ds('commit -m "Import of 1,797 digits"')
        ds("log")
        ds("status")
        ds("ls digits@main/images")
    with tell.step("Prewarm this node's cache") as read_from:
        read_from.append(ds("load digits@main").splitlines()[0])
    with tell.step("Again: everything is there") as read_from:
        read_from.append(ds("load digits@main").split(";")[-1].strip())
    with tell.step("Small files into shards: same content, new layout") as read_from:
        ds("pack digits@main --shuffle --seed 7")
        ds("diff main~1..main --stat")
        read_from.append(ds("load digits@main").splitlines()[0])
    with tell.step("Train three epochs through a stock DataLoader") as read_from:
        result = train("main", count_requests=server.requests)
        read_from.append(f"cache {result.local_bytes:,} B, peer {result.peer_bytes} B, origin {result.origin_bytes} B")
        if result.accuracy < 0.9 or result.origin_bytes:
            raise SystemExit("the training run missed its goal: over 90 % accuracy, nothing from the origin")
    with tell.step("A branch with 200 rotated images"):
        ds("branch augment")
        ds("switch augment")
        write_rotated(directory / "rotated", 200)
        ds(f"add {directory / 'rotated'}")
        ds('commit -m "200 images turned by 15 degrees"')
        ds("diff main..augment --stat")
    with tell.step("Prewarm only what is new, and merge") as read_from:
        read_from.append(ds("load --diff main..augment").splitlines()[0])
        ds("switch main")
        ds("merge augment")
        ds("log --oneline")
    console.print()
    console.print(tell.table())


def main() -> None:
    console.print("[bold]Forebay on 1,797 handwritten digits[/bold]")
    with tempfile.TemporaryDirectory(prefix="forebay-demo-") as name:
        directory = Path(name)
        console.print(f"a real S3 server (SeaweedFS) starts on loopback, everything lies in {directory}")
        with sources(directory) as server:
            run(directory, server)
    console.print("the S3 server is stopped, the directory is gone")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("interrupted; the S3 server is stopped, the directory is gone")
        sys.exit(130)
