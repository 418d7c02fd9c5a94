"""Claims about other processes."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from typing import TYPE_CHECKING

import pytest

from sources.contract.places import Arranged
from sources.errors import SourceError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from sources.contract.places import Place, PutBehind
    from sources.locations import Version
    from sources.stores import Store

_SECONDS = 60


class TravellingClaims(Arranged):
    """A store works in the processes of a data loader, or says that it does not; it never hangs there."""

    def test_a_pickled_store_reads_the_same(self, place: Place, put_behind: PutBehind) -> None:
        """What comes back has the same id and finds the same objects."""
        store, prefix = place
        put_behind(prefix + "data", b"12345")
        again: Store = pickle.loads(pickle.dumps(store))
        assert again.id == store.id
        assert again.stat(prefix + "data") == store.stat(prefix + "data")

    @pytest.mark.parametrize("start", ["fork", "spawn"])
    def test_another_process_reads_right_bytes_or_is_refused(
        self, place: Place, put_behind: PutBehind, start: str
    ) -> None:
        """Forked with the store's connections open, or spawned with a pickle of it."""
        store, prefix = place
        put_behind(prefix + "data", b"12345")
        version = store.stat(prefix + "data").version
        assert bytes(store.read(prefix + "data", start=0, length=5, version=version)) == b"12345"
        answer = _ask_another_process(start, store, prefix + "data", version)
        assert answer == b"234" or isinstance(answer, SourceError), f"found {answer!r}"
        assert bytes(store.read(prefix + "data", start=0, length=5, version=version)) == b"12345"


def _ask_another_process(start: str, store: Store, key: str, version: Version) -> object:
    context = multiprocessing.get_context(start)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=read_elsewhere, args=(theirs, store, key, version), daemon=True)  # type: ignore[attr-defined]
    with ours, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of a process with threads
        process.start()
        theirs.close()
        try:
            if not ours.poll(_SECONDS):
                pytest.fail(f"a read in a process started by {start} hangs")
            return ours.recv()
        except EOFError:
            process.join(_SECONDS)
            pytest.fail(f"a process started by {start} died with {process.exitcode}")
        finally:
            process.kill()
            process.join(_SECONDS)


def read_elsewhere(answers: Connection, store: Store, key: str, version: Version) -> None:
    """Read bytes 1 to 4 and send them, or the error that the store raises."""
    try:
        answers.send(bytes(store.read(key, start=1, length=3, version=version)))
    except SourceError as error:
        answers.send(SourceError(str(error)))  # not every error's constructor fits a pickle
