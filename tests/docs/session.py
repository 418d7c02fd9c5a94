"""Run the code of one document in the current directory, from top to bottom: python -m tests.docs.session DOCUMENT."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.docs.markdown import Block, blocks
from tests.services.processes import free_port

_ADDRESS = re.compile(r"(?<=127\.0\.0\.1:)[0-9]+")
_EXITS = re.compile(r"  # exits (?P<code>[0-9]+)$")


def run_document(document: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__document__"}
    ports: defaultdict[str, str] = defaultdict(lambda: str(free_port()))  # others may use those of the document now
    for written in blocks(document):
        block = replace(written, code=_ADDRESS.sub(lambda found: ports[found[0]], written.code))
        if block.file:
            Path(block.file).write_text(block.code)
        elif block.language == "python":
            _tell(document, block.line, "python")
            padding = "\n" * (block.line - 1)  # so that a traceback names the document's line
            exec(compile(padding + block.code, str(document), "exec"), namespace)
        elif block.language == "console":
            _run_console(document, block)


def _run_console(document: Path, block: Block) -> None:
    for number, line in enumerate(block.code.splitlines(), start=block.line):
        if line.startswith("$ "):
            expected = _EXITS.search(line)
            _tell(document, number, line)
            code = subprocess.run(["bash", "-c", line.removeprefix("$ ")], check=False, timeout=200).returncode
            if code != (int(expected["code"]) if expected else 0):
                raise SystemExit(f"{document}:{number}: {line}\nended with {code}")


_start = time.monotonic()


def _tell(document: Path, line: int, what: str) -> None:
    print(f"[{time.monotonic() - _start:.1f} s] {document.name}:{line}: {what}", flush=True)


if __name__ == "__main__":
    run_document(Path(sys.argv[1]))
