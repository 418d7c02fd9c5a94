"""What can go wrong between a commit and a batch, grouped by what a caller would do about it.

    LoaderError
    ├── SampleError               (ValueError)    the paths of a commit do not make samples: fix the rule or the data
    │   ├── DuplicateFieldError                   two paths claim one field of one sample
    │   ├── MissingFieldError                     samples lack a field that was asked for
    │   ├── KeyRuleError                          a rule that joins files into samples cannot be used
    │   └── NoSamplesError                        nothing is left to deliver
    ├── PackError                                 a pack broke off; run it again, what is stored is not written again
    │   ├── TransformError        (ValueError)    the user's function failed, or returned no sample
    │   ├── PackWorkerError       (RuntimeError)  a worker cannot be used, or died again and again
    │   ├── PackExecutorError     (ValueError)    the executor that was asked for cannot be had
    │   └── PackRunningError                      another process makes the same pack
    ├── CodeError                 (ValueError)    no function of that name can be imported
    ├── DecodeError               (ValueError)    the bytes of one field are not what its extension says
    ├── CorruptSampleError        (OSError)       the bytes of one field are not those that were committed
    ├── ShardFormatError          (ValueError)    a shard or its index is damaged, cut short or of another format
    ├── ShardsExistError          (FileExistsError)  a writer found shards, or another writer, where it was to write
    ├── StateMismatchError        (ValueError)    a saved state belongs to another order
    ├── RunningError                              a Loader cannot go on; what it delivered is counted in its state
    │   ├── CollateError          (ValueError)    samples of one batch do not fit together
    │   ├── BadSamplesError                       more samples are bad than the limits allow
    │   ├── WorkerEndedError      (RuntimeError)  a worker process cannot start, or ended again and again
    │   ├── LoaderTimeoutError    (TimeoutError)  a batch was not there in time
    │   └── IterationError        (RuntimeError)  the loader is iterated anew, or was closed, inside of an iteration
    ├── MissingIndexError         (OSError)       the file of a sample index is gone or damaged: open the data anew
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


class KeyRuleError(SampleError):
    """A rule that joins files into samples cannot be used."""

    kind = "key_rule"

    def __init__(self, message: str, *, rule: str = "") -> None:
        """Carry the rule as text."""
        super().__init__(message)
        self.rule = rule


class PackError(LoaderError):
    """A pack broke off and nothing was committed; run again, it writes only the shards that are missing."""

    kind = "pack"


class TransformError(PackError, ValueError):
    """The user's function failed with a sample, or returned something else than a sample or None."""

    kind = "transform"

    def __init__(self, message: str, *, key: str = "") -> None:
        """Carry the sample's key."""
        super().__init__(message)
        self.key = key


class PackWorkerError(PackError, RuntimeError):
    """A worker cannot open the repository, failed with an error of its own, or died again and again."""

    kind = "pack_worker"


class PackExecutorError(PackError, ValueError):
    """The executor that was asked for is unknown, not installed, or cannot be reached."""

    kind = "pack_executor"


class PackRunningError(PackError):
    """Another process of this machine makes the same pack; it was left alone."""

    kind = "pack_running"


class CodeError(LoaderError, ValueError):
    """No function of the name that was given can be imported."""

    kind = "code"


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


class ShardFormatError(LoaderError, ValueError):
    """A shard, or the index of one, is damaged, cut short, or of a format or version that is not known."""

    kind = "shard_format"

    def __init__(self, message: str, *, uri: str = "", offset: int = -1) -> None:
        """Carry the object and, where it is known, the byte at which it goes wrong."""
        super().__init__(message)
        self.uri = uri
        self.offset = offset


class ShardsExistError(LoaderError, FileExistsError):
    """There are shards, or another writer, where a writer was to begin; nothing was changed."""

    kind = "shards_exist"

    def __init__(self, message: str, *, uri: str = "") -> None:
        """Carry the place."""
        super().__init__(message)
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


class MissingIndexError(LoaderError, OSError):
    """The file of a sample index cannot be used; opening the data set again makes a new one."""

    kind = "missing_index"

    def __init__(self, message: str, *, path: str = "") -> None:
        """Carry the file."""
        super().__init__(message)
        self.path = path

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RunningError(LoaderError):
    """A `Loader` cannot go on; the batches that it delivered are counted in its state, no other one is."""

    kind = "running"


class CollateError(RunningError, ValueError):
    """The values of one field in one batch cannot be stacked."""

    kind = "collate"


class BadSamplesError(RunningError):
    """More samples are bad than the loader's limits allow, or all of one batch."""

    kind = "bad_samples"

    def __init__(self, message: str, *, count: int = 0, numbers: tuple[int, ...] = ()) -> None:
        """Carry how many were bad and the numbers of the last ones."""
        super().__init__(message)
        self.count = count
        self.numbers = numbers


class WorkerEndedError(RunningError, RuntimeError):
    """A worker process cannot start, or processes ended again and again at the same batch."""

    kind = "worker_ended"

    def __init__(self, message: str, *, exit_code: int | None = None, numbers: tuple[int, ...] = ()) -> None:
        """Carry how it ended (minus the signal's number) and the samples of the batch that it was making."""
        super().__init__(message)
        self.exit_code = exit_code
        self.numbers = numbers


class LoaderTimeoutError(RunningError, TimeoutError):
    """A batch was not there within `timeout`."""

    kind = "loader_timeout"

    def __init__(self, message: str, *, numbers: tuple[int, ...] = ()) -> None:
        """Carry the samples of the batch."""
        super().__init__(message)
        self.numbers = numbers


class IterationError(RunningError, RuntimeError):
    """A loader gives its batches to one iteration at a time, and this one is not it any more."""

    kind = "iteration"
