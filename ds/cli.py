"""The entry point of the command `ds`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `ds`; every error ends in one line and the right exit code, Ctrl-C too, from the first moment."""
    try:
        from ds.application import run  # loading our libraries takes a while: Ctrl-C must not print a traceback then

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
