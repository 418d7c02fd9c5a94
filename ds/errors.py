"""What can be wrong with a command before anything was done.

CommandError
└── UsageError        (ValueError)   the arguments do not fit together, or name what is not there
└── TargetError                  a text names no dataset, version or path
"""

from __future__ import annotations


class CommandError(Exception):
    """Base of every error of this package."""

    kind = "command"


class UsageError(CommandError, ValueError):
    """The command cannot be run like this; nothing was done."""

    kind = "usage"


class TargetError(UsageError):
    """The text names no dataset, version or path."""

    kind = "target"
