"""Hooks that run code: commands, and entry points of installed packages."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from importlib.metadata import entry_points
from typing import IO, TYPE_CHECKING, Any

from versioning.hooks.builtin import MAX_FINDINGS, Refusal
from versioning.hooks.records import changes_of, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from versioning.diffs import Diff
    from versioning.hooks.config import Hook
    from versioning.hooks.proposals import HookContext

GROUP = "forebay.hooks"
"""Entry points that hooks may name."""
_OUTPUT_BYTES = 1 << 20
_REASON_CHARACTERS = 2000
_LINGER_SECONDS = 1.0


def run_command(
    hook: Hook, diff: Diff, context: HookContext, *, directory: Path, environment: Mapping[str, str]
) -> Refusal | None:
    """Run a command with the changes as NDJSON on its standard input; None if it ends with 0.

    What it writes on standard output are offending paths, one a line, with a tab and what is wrong behind it; on
    standard error the reason. After the time-out it is killed, with all that it started in its process group.
    """
    extra = {
        "FOREBAY_HOOK": hook.id,
        "FOREBAY_HOOK_EVENT": context.event,
        "FOREBAY_HOOK_BRANCH": context.branch,
        "FOREBAY_HOOK_BASE": context.base,
        "FOREBAY_HOOK_AUTHOR": context.author,
        "FOREBAY_HOOK_MESSAGE": context.message,
        "FOREBAY_HOOK_REPOSITORY": context.repository,
    }
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                hook.value,
                cwd=directory,
                env={**environment, **extra},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=complaints,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Refusal(f"{hook.value[0]} cannot be run: {error}", [])
        code = _feed(process, diff, hook.timeout_seconds)
        if code == 0:
            return None
        ended = f"it took longer than {hook.timeout_seconds:g} s" if code is None else f"it ended with {code}"
        said = _text_of(complaints).strip()[-_REASON_CHARACTERS:]
        return Refusal(said or ended, [_finding(line) for line in _text_of(output).splitlines() if line.strip()])


def run_entry_point(hook: Hook, diff: Diff, context: HookContext) -> Refusal | None:
    """Call an entry point of the group `forebay.hooks` with the changes, the context, and the hook's options.

    It returns None, or what is wrong: texts, or pairs of a path and what is wrong with it. An exception refuses, too.
    """
    found = next(iter(entry_points(group=GROUP, name=hook.value)), None)
    if found is None:
        return Refusal(f"no installed package has an entry point {hook.value} in the group {GROUP}; install it", [])
    try:
        wrong = found.load()(changes_of(diff), context, **(hook.options or {}))
        findings = list(_pairs(wrong)) if wrong is not None else []
    except Exception as error:  # noqa: BLE001 - foreign code; whatever goes wrong in it refuses, and is said
        return Refusal(f"{type(error).__name__}: {error}"[:_REASON_CHARACTERS], [])
    return Refusal(f"{len(findings):,} findings", findings) if findings else None


def _feed(process: subprocess.Popen[bytes], diff: Diff, seconds: float) -> int | None:
    """Write the changes to a process, wait for it, and return its exit code; None if it had to be killed."""
    writer = threading.Thread(target=_write, args=(process.stdin, diff), name="forebay-hook", daemon=True)
    writer.start()
    try:
        code = process.wait(seconds)
        writer.join(_LINGER_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    else:
        return code
    finally:
        if process.returncode is None or writer.is_alive():  # or Ctrl-C came, or it left somebody who holds our pipe
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            writer.join(_LINGER_SECONDS)


def _write(stdin: IO[bytes] | None, diff: Diff) -> None:
    assert stdin is not None
    with suppress(BrokenPipeError), stdin:  # a hook need not read what it is given
        for line in lines_of(diff):
            stdin.write(line)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_OUTPUT_BYTES).decode(errors="replace")


def _finding(line: str) -> tuple[str, str]:
    path, _, what = line.partition("\t")
    return path, what.strip()


def _pairs(wrong: str | Iterable[Any]) -> Iterator[tuple[str, str]]:
    for number, each in enumerate([wrong] if isinstance(wrong, str) else wrong):
        if number == MAX_FINDINGS:
            return
        if isinstance(each, tuple):
            path, what = each
            yield str(path), str(what)
        else:
            yield str(each), ""
