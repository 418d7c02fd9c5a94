"""What can go wrong between a commit and a batch, grouped by what a caller would do about it.

    LoaderError
    ├── SampleError               (ValueError)    the paths of a commit do not make samples: fix the rule or the data
    │   ├── DuplicateFieldError                   two paths claim one field of one sample
    │   ├── MissingFieldError                     samples lack a field that was asked for
    │   └── NoSamplesError                        nothing is left to deliver
    ├── DecodeError               (ValueError)    the bytes of one field are not what its extension says
    ├── CorruptSampleError        (OSError)       the bytes of one field are not those that were committed
    ├── StateMismatchError        (ValueError)    a saved state belongs to another order
    └── MissingExtraError         (ImportError)   an optional dependency is not installed

Every message stands alone: a DataLoader worker hands its parent the type and the text of an error, not its fields.
"""

from __future__ import annotations


class LoaderError(Exception):
    """Base of every error of this package."""

    kind = "loader"


class SampleError(LoaderError, ValueError):
    """The paths of a commit do not make samples under this key rule."""

    kind = "sample"


class DuplicateFieldError(SampleError):
    """Two paths claim the same field of the same sample."""

    kind = "duplicate_field"

    def __init__(self, message: str, *, key: str = "", field: str = "", paths: tuple[str, str] = ("", "")) -> None:
        """Carry the sample key, the field and both paths."""
        super().__init__(message)
        self.key = key
        self.field = field
        self.paths = paths


class MissingFieldError(SampleError):
    """Samples lack a field that was asked for."""

    kind = "missing_field"

    def __init__(self, message: str, *, field: str = "", keys: tuple[str, ...] = (), count: int = 0) -> None:
        """Carry the field, the first few sample keys without it and how many there are."""
        super().__init__(message)
        self.field = field
        self.keys = keys
        self.count = count


class NoSamplesError(SampleError):
    """There is nothing to deliver."""

    kind = "no_samples"


class DecodeError(LoaderError, ValueError):
    """The bytes of one field could not be decoded; the cause is chained."""

    kind = "decode"

    def __init__(self, message: str, *, key: str = "", field: str = "", uri: str = "") -> None:
        """Carry the sample key, the field and the object that holds it."""
        super().__init__(message)
        self.key = key
        self.field = field
        self.uri = uri


class CorruptSampleError(LoaderError, OSError):
    """The bytes that came back are not those that the commit describes; none of them were delivered."""

    kind = "corrupt_sample"

    def __init__(self, message: str, *, key: str = "", field: str = "", uri: str = "") -> None:
        """Carry the sample key (or the path), the field and the object that holds it."""
        super().__init__(message)
        self.key = key
        self.field = field
        self.uri = uri

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StateMismatchError(LoaderError, ValueError):
    """A saved state cannot be resumed here: it was saved for another order; nothing was changed."""

    kind = "state_mismatch"

    def __init__(self, message: str, *, field: str = "", expected: object = None, actual: object = None) -> None:
        """Carry the field that differs, its value here (`expected`) and its value in the state (`actual`)."""
        super().__init__(message)
        self.field = field
        self.expected = expected
        self.actual = actual


class MissingExtraError(LoaderError, ImportError):
    """A decoder needs an optional dependency."""

    kind = "missing_extra"
