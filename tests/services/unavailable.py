"""What is no failure of ours."""

from __future__ import annotations


class UnavailableError(RuntimeError):
    """This machine cannot have it: it is not ours to install packages on, or nobody gives us what is needed."""
