"""The entry point of the command `ds`; it imports only what Python has loaded already, so that Ctrl-C finds `main`."""

from __future__ import annotations

import gc
import io
import sys
from _thread import interrupt_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run `ds`; every error ends in one line and the right exit code, Ctrl-C too, from the first moment."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a letter that is in a file's name
    sys.unraisablehook = _interrupt_again
    gc.disable()  # what is loaded until the command runs stays; looking through it takes a tenth of the time
    try:
        # loading our libraries takes a while: Ctrl-C must not print a traceback then
        from ds.application import run
        from ds.arrow import load_leanly
        from ds.commands.lazy import LazyCommand

        LazyCommand.before_loading.append(load_leanly)
        LazyCommand.before_running.append(_collect_from_now_on)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except Exception:
        import logging

        logging.getLogger(__name__).exception("internal error, please report it with what follows")
        code = 70
    sys.exit(code)


def _collect_from_now_on() -> None:
    gc.freeze()
    gc.enable()


def _interrupt_again(what: UnraisableHookArgs) -> None:
    """Send a Ctrl-C that fell into a callback of the interpreter, which can only drop it, once more."""
    if isinstance(what.exc_value, KeyboardInterrupt):
        interrupt_main()
    else:
        sys.__unraisablehook__(what)
