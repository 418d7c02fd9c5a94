"""The application behind the command `ds`: its commands, and how errors end."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from ds.commands.coercing import SparingGroup
from ds.commands.lazy import add_lazily
from ds.commands.pathspecs import PathsCommand, forbid_pager
from ds.commands.table import COMMANDS, TAKE_PATHS
from ds.exit_codes import Exit

app = typer.Typer(
    name="ds",
    cls=SparingGroup,
    help="Datasets for training: declared in YAML, versioned like git, cached on this node.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
sparse_app = typer.Typer(help="Choose which files a working copy holds.", no_args_is_help=True, rich_markup_mode=None)
hooks_app = typer.Typer(
    help="Look after the checks that a branch asks for.", no_args_is_help=True, rich_markup_mode=None
)
cache_app = typer.Typer(help="Look after this machine's caches.", no_args_is_help=True, rich_markup_mode=None)
writes_app = typer.Typer(
    help="Look after written files that are not committed yet.", invoke_without_command=True, rich_markup_mode=None
)
dvc_app = typer.Typer(help="Take over DVC projects.", no_args_is_help=True, rich_markup_mode=None)
k8s_app = typer.Typer(help="Put Forebay into a Kubernetes cluster.", no_args_is_help=True, rich_markup_mode=None)
agent_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
export_app = typer.Typer(help="Write a version for other tools.", no_args_is_help=True, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # it brings the standard library's e-mail

        sys.stdout.write(f"ds {version('forebay')}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details to stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    no_pager: Annotated[bool, typer.Option("--no-pager", help="Print long output as it is.")] = False,
) -> None:
    if no_pager:
        forbid_pager(context)
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for package in ("ds", "dataset_controller", "loaders", "cache_runtime", "versioning", "sources"):
        logging.getLogger(package).setLevel(level)


@writes_app.callback()
def _writes(context: typer.Context) -> None:
    """List the transactions of this machine that are not committed, as `ds writes list` does."""
    if context.invoked_subcommand is None:
        from ds.commands.writing import list_command  # as late as all commands

        list_command()


@agent_app.callback()
def _agent(
    context: typer.Context,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The one that it looks after.")] = "default",
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of /healthz, /readyz and /metrics; :PORT is every address.")
    ] = ":7071",
    log: Annotated[str, typer.Option("--log", help="text or json: lines on stderr.")] = "text",
) -> None:
    """Look after the Datasets of a Kubernetes namespace, until SIGTERM or Ctrl-C: the operator runs one in a pod.

    It has the secrets of their sources: it creates repositories, commits what changed in the sources every
    spec.sync.interval, asks the workers how they are, and tells all of it in the status of each object.
    """
    if context.invoked_subcommand is None:
        from ds.commands.agent import serve_namespace  # as late as all commands

        serve_namespace(namespace, listen, log)


_GROUPS = {
    "": app,
    "sparse": sparse_app,
    "hooks": hooks_app,
    "cache": cache_app,
    "writes": writes_app,
    "dvc": dvc_app,
    "k8s": k8s_app,
    "export": export_app,
    "agent": agent_app,
}
for _group, _commands in COMMANDS.items():
    for _name, (_place, _help) in _commands.items():
        _takes_paths = not _group and _name in TAKE_PATHS
        add_lazily(_GROUPS[_group], _name, _place, _help, kind=PathsCommand if _takes_paths else None)
app.add_typer(sparse_app, name="sparse")
app.add_typer(hooks_app, name="hooks")
app.add_typer(cache_app, name="cache")
app.add_typer(writes_app, name="writes")
app.add_typer(dvc_app, name="dvc")
app.add_typer(k8s_app, name="k8s")
app.add_typer(export_app, name="export")
app.add_typer(agent_app, name="agent")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()  # that nobody reads any more is found here, not when Python ends
    except typer.TyperException as error:
        _say(_usage(error))
        return Exit.USAGE
    except Exception as error:
        code = _end_in(error, arguments)
        if code is None:
            raise
    if code == Exit.INTERRUPTED:
        _say("interrupted; nothing is half-written, the same command goes on")
    return code if isinstance(code, int) else Exit.OK


def _end_in(error: Exception, arguments: list[str]) -> Exit | None:
    """Say in one line what a command ended in, and return its code; None for a bug."""
    from ds.exits import EXPECTED_ERRORS, exit_of  # these name the errors of all packages, which takes a while

    if isinstance(error, EXPECTED_ERRORS):
        _say(f"ds: {error}")
        return exit_of(error)
    if isinstance(error, BrokenPipeError):  # `ds ls | head` is no error
        _drop_output()
        return Exit.OK
    if isinstance(error, OSError):  # without a file it is stdout's; ours name what they are about
        _drop_output()
        what = f"cannot use {error.filename}" if error.filename else "cannot write the output"
        _say(f"ds: {what}: {error.strerror or error}")
        return Exit.UNAVAILABLE
    if isinstance(error, UnicodeEncodeError):
        undecodable = next((each for each in arguments if any("\udc80" <= letter <= "\udcff" for letter in each)), None)
        if undecodable is not None:  # Python gives bytes that are no UTF-8 as such letters (PEP 383)
            _say(f"ds: {undecodable!r} is not valid UTF-8, which every path and name in a dataset is")
            return Exit.USAGE
    return None


def _say(text: str) -> None:
    from ds.output import errors  # so late because it takes a while

    errors().print(text, markup=False)


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
