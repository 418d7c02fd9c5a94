"""The entry point of the command `ds`."""

from __future__ import annotations

import io
import logging
import sys
from _thread import interrupt_main
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run `ds`; every error ends in one line and the right exit code, Ctrl-C too, from the first moment."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a letter that is in a file's name
    sys.unraisablehook = _interrupt_again
    try:
        from ds.application import run  # loading our libraries takes a while: Ctrl-C must not print a traceback then

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except Exception:
        logging.getLogger(__name__).exception("internal error, please report it with what follows")
        code = 70
    sys.exit(code)


def _interrupt_again(what: UnraisableHookArgs) -> None:
    """Send a Ctrl-C that fell into a callback of the interpreter, which can only drop it, once more."""
    if isinstance(what.exc_value, KeyboardInterrupt):
        interrupt_main()
    else:
        sys.__unraisablehook__(what)
