"""The application behind the command `ds`: its commands, and how errors end."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from typing import Annotated

import typer

from ds.commands import (
    caching,
    datasets,
    doctor,
    evicting,
    explaining,
    files,
    history,
    loading,
    packing,
    pinning,
    staging,
    top,
    verifying,
    worker,
)
from ds.commands.writing import writes_app
from ds.exits import EXPECTED_ERRORS, Exit, exit_of
from ds.output import errors

app = typer.Typer(
    name="ds",
    help="Datasets for training: declared in YAML, versioned like git, cached on this node.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(help="Look after this machine's caches.", no_args_is_help=True, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ds {importlib.metadata.version('forebay')}\n")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details to stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for package in ("ds", "dataset_controller", "loaders", "cache_runtime", "versioning", "sources"):
        logging.getLogger(package).setLevel(level)


for _name, _command in (
    ("apply", datasets.apply_command),
    ("get", datasets.get_command),
    ("delete", datasets.delete_command),
    ("import", staging.import_command),
    ("add", staging.add_command),
    ("rm", staging.rm_command),
    ("status", staging.status_command),
    ("reset", staging.reset_command),
    ("commit", staging.commit_command),
    ("log", history.log_command),
    ("diff", history.diff_command),
    ("branch", history.branch_command),
    ("switch", history.switch_command),
    ("tag", history.tag_command),
    ("merge", history.merge_command),
    ("ls", files.ls_command),
    ("cat", files.cat_command),
    ("load", loading.load_command),
    ("pack", packing.pack_command),
    ("explain", explaining.explain_command),
    ("top", top.top_command),
    ("worker", worker.worker_command),
):
    app.command(_name)(_command)
for _name, _cache_command in (
    ("status", caching.cache_status_command),
    ("top", top.top_command),
    ("evict", evicting.cache_evict_command),
    ("pin", pinning.cache_pin_command),
    ("unpin", pinning.cache_unpin_command),
    ("verify", verifying.cache_verify_command),
    ("doctor", doctor.cache_doctor_command),
):
    cache_app.command(_name)(_cache_command)
app.add_typer(cache_app, name="cache")
app.add_typer(writes_app, name="writes")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()  # that nobody reads any more is found here, not when Python ends
    except typer.TyperException as error:
        errors().print(_usage(error), markup=False)
        return Exit.USAGE
    except EXPECTED_ERRORS as error:
        errors().print(f"ds: {error}", markup=False)
        return exit_of(error)
    except BrokenPipeError:  # `ds ls | head` is no error
        _drop_output()
        return Exit.OK
    except OSError as error:  # without a file it is stdout's; ours name what they are about
        _drop_output()
        what = f"cannot use {error.filename}" if error.filename else "cannot write the output"
        errors().print(f"ds: {what}: {error.strerror or error}", markup=False)
        return Exit.UNAVAILABLE
    if code == Exit.INTERRUPTED:
        errors().print("interrupted; nothing is half-written, the same command goes on")
    return code if isinstance(code, int) else Exit.OK


def _invoke(arguments: list[str]) -> object:
    """Run one command as Typer does, but let a closed pipe be what it is; Ctrl-C is a code to Typer."""
    try:
        return typer.main.get_command(app).main(arguments, prog_name="ds", standalone_mode=False)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise


def _usage(error: typer.TyperException) -> str:
    """Say what is wrong with the arguments, and where their help is; no arguments at all ask for the help itself."""
    message = error.format_message()
    command = getattr(getattr(error, "ctx", None), "command_path", "ds")
    return message if message.startswith("Usage:") else f"ds: {message.rstrip('.')}; see: {command} --help"


def _drop_output() -> None:
    """Keep Python from complaining about what it cannot write while it ends."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the process
