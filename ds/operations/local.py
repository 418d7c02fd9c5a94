"""Operations of this machine: what `ds apply` of a DataLoad, DataPack, DataProcess or DataMigrate does."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_controller.embedded import Applied
from dataset_controller.embedded_operations import LocalOperations
from dataset_controller.local_effect import without_effect_here
from dataset_controller.operations import DataLoad, DataMigrate, DataPack, DataProcess
from ds.errors import CommandError, OperationError
from ds.operations.loads import run_load
from ds.operations.migrations import run_migration
from ds.operations.packs import run_pack
from ds.operations.processes import bring_input, commit_output

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from dataset_controller.agent.loads import Asked
    from dataset_controller.operations import Operation
    from ds.settings import Settings

_POLL_SECONDS = 0.1
_END_SECONDS = 10.0
_MOST_SAID = 500


def local_operations(settings: Settings) -> LocalOperations:
    """Return the operations of this machine."""
    from cache_runtime.errors import CacheError
    from loaders import LoaderError

    def runs(asked: Asked, cancel: threading.Event) -> None:
        run_operation(asked, settings, cancel=cancel)

    return LocalOperations(settings.catalog(), runs, (CommandError, CacheError, LoaderError))


def apply_operations(operations: Sequence[Operation], settings: Settings) -> list[Applied]:
    """Record operations, and do what is to be done now, those that others wait for first."""
    plane, applied = local_operations(settings), []
    for each in operations:
        change: Any = plane.put(each)
        applied.append(Applied(each.kind, each.metadata.name, change, tuple(without_effect_here(each))))
    settle(plane)
    return applied


def settle(plane: LocalOperations, names: Sequence[str] | None = None) -> None:
    """Do what operations take now; one that ends may let others begin."""
    before = None
    while before != (now := _phases(plane)):
        before = now
        for name in names if names is not None else plane.names():
            plane.work_off(name)


def _phases(plane: LocalOperations) -> list[tuple[str, Any, Any]]:
    found = [(name, plane.document(name)["status"]) for name in plane.names()]
    return [(name, status.get("phase"), status.get("run")) for name, status in found]


def run_operation(asked: Asked, settings: Settings, *, cancel: threading.Event) -> None:
    """Do what an operation asks, on this machine; run again, it goes on where it stopped.

    Raises:
        OperationError: If it did not end well.
    """
    if isinstance(asked.operation, DataLoad):
        report = run_load(asked, settings, cancel=cancel)
        if not report.verified:
            failed = report.failed_objects + report.left_out_objects
            first = report.failures[0].reason if report.failures else "there is no room"
            raise OperationError(f"{failed:,} files are not in the cache: {first}")
    elif isinstance(asked.operation, DataPack):
        run_pack(asked, settings, cancel=cancel)
    elif isinstance(asked.operation, DataMigrate):
        run_migration(asked, settings, cancel=cancel)
    else:
        _run_process(asked, settings, cancel)


def _run_process(asked: Asked, settings: Settings, cancel: threading.Event) -> None:
    assert isinstance(asked.operation, DataProcess)
    template = asked.operation.spec.template["spec"]
    with tempfile.TemporaryDirectory(prefix="forebay-process-") as directory:
        work = Path(directory)
        bring_input(asked, settings, work, cancel=cancel)
        texts = {"FOREBAY_INPUT": str(work / "input"), "FOREBAY_OUTPUT": str(work / "output")}
        own = {**texts, "FOREBAY_DATASET": asked.operation.spec.dataset.name}
        for container in (*template.get("initContainers", ()), *template["containers"]):
            _run_program(container, own, work, cancel)
        commit_output(asked, settings, work)


def _run_program(container: dict[str, Any], own: dict[str, str], work: Path, cancel: threading.Event) -> None:
    """Run what a container would, without its image.

    Raises:
        OperationError: If it cannot be run, fails, or is told to stop.
    """
    name, command = container.get("name", "?"), [*container.get("command", ()), *container.get("args", ())]
    if not container.get("command"):
        raise OperationError(f"container {name}: name its command; this machine knows no image's own program")
    named = {each["name"]: str(each.get("value", "")) for each in container.get("env", ()) if "valueFrom" not in each}
    with (work / "said").open("w+b") as said:
        try:
            process = subprocess.Popen(
                [_expanded(str(each), {**named, **own}) for each in command],
                env={**os.environ, **named, **own}, stdout=said, stderr=subprocess.STDOUT, cwd=work,
            )  # fmt: skip
        except OSError as error:
            raise OperationError(f"container {name}: {command[0]} cannot be run here: {error.strerror}") from error
        code = _ended(process, cancel)
        said.seek(max(0, said.tell() - _MOST_SAID))
        text = said.read().decode("utf-8", "replace").strip()
    if cancel.is_set():
        raise OperationError(f"container {name} was told to stop")
    if code:
        raise OperationError(f"container {name} ended with {code}: {text or 'it said nothing'}")


def _ended(process: subprocess.Popen[bytes], cancel: threading.Event) -> int:
    """Wait for a program; one that is to stop is asked, then killed."""
    try:
        while not cancel.is_set():
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        process.terminate()
        try:
            return process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise


def _expanded(text: str, variables: dict[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does."""
    for name, value in variables.items():
        text = text.replace(f"$({name})", value)
    return text
