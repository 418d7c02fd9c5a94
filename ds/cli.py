"""The entry point of the command `ds`; it imports only what Python has loaded already, so that Ctrl-C finds `main`."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from _thread import interrupt_main, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run `ds`; every error ends in one line and the right exit code, Ctrl-C too, from the first moment."""
    ending = _Ending()
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
    ending.code = int(code)
    sys.exit(code)


class _Ending:
    """Ends this process once all is done that Python does at its end, except that no object is taken down.

    That takes a tenth of the time of a short command, and the kernel does it at once. Made before anything else asks to
    be called at the end, so that it is called last: threads have ended, and other callbacks have run. Not where another
    was first, where `main` is not the whole program, and not in Python's development mode, which looks for what was
    left open.

    Attributes:
        code: The exit code, when it is known.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        is_first = getattr(atexit, "_ncallbacks", lambda: 1)() == 0
        if is_first and getattr(sys.modules["__main__"], "main", None) is main and not sys.flags.dev_mode:
            atexit.register(self._end)

    def _end(self) -> None:
        if self.code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):  # full, or closed: Python says so as ever
            return
        os._exit(self.code)


def _collect_from_now_on() -> None:
    gc.freeze()
    gc.enable()


def _interrupt_again(what: UnraisableHookArgs) -> None:
    """Send a Ctrl-C that fell into a callback of the interpreter, which can only drop it, once more."""
    if isinstance(what.exc_value, KeyboardInterrupt):
        start_new_thread(interrupt_main, ())  # from here it would fall into this callback, too
    else:
        sys.__unraisablehook__(what)
