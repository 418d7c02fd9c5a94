"""Exit codes.

0   done
1   the answer is no: differences, conflicts, nothing to commit, a load with failures, a changed source
2   usage: wrong arguments, a manifest or name that cannot be
3   not found: dataset, revision, path, bucket, object
4   lost race: others kept writing; run it again
5   refused: credentials, permissions, policy
69  unavailable: a store or disk cannot be reached or is full; run it again when it is back
70  internal: damaged bytes, a damaged repository or a bug
130 interrupted
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `ds`."""

    OK = 0
    NO = 1
    USAGE = 2
    NOT_FOUND = 3
    LOST_RACE = 4
    REFUSED = 5
    UNAVAILABLE = 69
    INTERNAL = 70
    INTERRUPTED = 130
