"""One commit of a repository as DVC shows it."""

from __future__ import annotations

import logging
import os
import shutil
import stat as modes
import sys
import tempfile
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from sources.dvc.porcelain import load_porcelain
from sources.errors import SourceConfigError, SourceUnavailableError
from sources.locations import Version

if TYPE_CHECKING:
    from collections.abc import Callable

    from sources.dvc.naming import Repository

_T = TypeVar("_T")

_LOGGERS = ("dvc", "dvc_objects", "dvc_data")
_HASHES = ("md5", "md5-dos2unix")  # the second: text files of DVC 2, hashed without their carriage returns
_TASK_SECONDS = 600  # opening clones the repository, or loads the listing of a large directory
_SIZE_THREADS = 16


@dataclass(frozen=True)
class Tracked:
    """A file of a commit.

    Attributes:
        version: `md5:<hex>` of a file that DVC tracks, `blob:<hex>` of one that only git does.
        size: Bytes; None until it was asked for: DVC does not record it for the files of a directory.
        places: Where DVC keeps it, best first, as (filesystem, path); empty for a file in git.
    """

    version: Version
    size: int | None
    places: tuple[tuple[Any, str], ...]

    @property
    def digest(self) -> str:
        """The hash without its kind."""
        return self.version.partition(":")[2]


_Tasks: TypeAlias = "SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


class Page(NamedTuple):
    """A directory: its files and directories by name, and the names that cannot be pinned."""

    files: dict[str, Tracked]
    directories: list[str]
    left_out: list[str]


class Revision:
    """One commit of a repository, opened through DVC.

    DVC keeps its index in sqlite and git's objects in libgit2, neither made for several threads: one thread of its own
    asks both. The index lies in a temporary directory of this process, so that no other DVC is disturbed.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._scratch = tempfile.mkdtemp(dir=_scratch())
        self._tasks: _Tasks = SimpleQueue()
        opened: list[Any] = []
        self._release = weakref.finalize(self, _release, os.getpid(), self._tasks, opened, self._scratch)
        threading.Thread(target=_serve, args=(self._tasks,), name="forebay-dvc", daemon=True).start()
        try:
            self._filesystem = self._do(self._open)
            opened.append(self._filesystem)
            self.commit: str = self._do(lambda: self._filesystem.repo.get_rev())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the thread and delete the index, as soon as what it is at is done; dropping the object does the same."""
        self._release()

    def is_current(self) -> bool:
        """Say whether the revision's name still leads to this commit, as far as the local git repository knows."""
        from dvc.scm import resolve_rev

        return bool(self._do(lambda: resolve_rev(self._filesystem.repo.scm, self._repository.rev)) == self.commit)

    def find(self, path: str) -> Tracked | None:
        """Look a file up; None if there is none of that name.

        Raises:
            SourceConfigError: If neither DVC nor git knows its content by hash.
        """
        return self._do(lambda: self._find(path))

    def page(self, path: str) -> Page:
        """List a directory.

        Raises:
            FileNotFoundError: If there is none.
            NotADirectoryError: If it is a file.
        """
        return self._do(lambda: self._page(path))

    def blob(self, path: str) -> bytes:
        """Read a file that is in git."""
        return self._do(lambda: self._blob(path))

    def _do(self, task: Callable[[], _T]) -> _T:
        future: Future[_T] = Future()
        self._tasks.put((future, task))
        try:
            return future.result(timeout=_TASK_SECONDS)
        except TimeoutError as error:
            future.cancel()
            raise SourceUnavailableError(f"{self._repository.uri}: no answer of DVC in {_TASK_SECONDS} s") from error

    def _open(self) -> Any:
        filesystem, repo_class, read_config = _load_dvc()
        source = self._repository
        settings: dict[str, Any] = {"core": {"site_cache_dir": self._scratch}}
        extra = {"remote": source.remote, "remote_config": dict(source.remote_config) or None}
        checkout = os.path.join(source.url, ".dvc")
        if not source.is_local or not os.path.isdir(checkout):
            load_porcelain()  # before DVC does
            opened = filesystem(repo=source.url, rev=source.rev, subrepos=True, config=settings, **extra)
            _clean_clones_at_exit(opened.repo)  # opens it: now, not at the first use
            return opened
        # Repo.open would do, but writes below .dvc/tmp of the user's checkout, which may be read-only
        local = read_config(checkout)
        for section in ("cache", "remote", "core"):  # paths in it are relative to the checkout, not to the commit
            settings[section] = {**local.get(section, {}), **settings.get(section, {})}
        repo = repo_class(source.url, rev=source.rev, subrepos=True, config=settings, **extra)
        return filesystem(repo=repo, subrepos=True)

    def _find(self, path: str) -> Tracked | None:
        try:
            info = self._filesystem.info(f"/{path}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if info["type"] != "file":
            return None
        found = _tracked(info)
        if found is None:
            raise SourceConfigError(
                f"{self._repository.uri}/{path} cannot be pinned: neither DVC nor git knows its content by hash"
            )
        return found

    def _page(self, path: str) -> Page:
        page = Page({}, [], [])
        infos = self._filesystem.ls(f"/{path}".rstrip("/") or "/", detail=True, ignore_subrepos=False)
        for info in infos:
            name = info["name"].rstrip("/").rpartition("/")[2]
            if info["name"].strip("/") == path.strip("/"):
                raise NotADirectoryError(path)
            if info["type"] == "directory":
                page.directories.append(name)
            elif (found := _tracked(info)) is None:
                page.left_out.append(name)
            else:
                page.files[name] = found
        return page

    def _blob(self, path: str) -> bytes:
        info = self._filesystem.info(f"/{path}")
        with info["repo"].fs.fs.open(info["fs_info"]["name"], raw=True) as file:
            return bytes(file.read())


_scratches: dict[int, str] = {}  # by process


def _scratch() -> str:
    """Return this process's directory for indexes, deleted at its end; `atexit` would forget a forked worker's."""
    pid = os.getpid()
    if pid not in _scratches:
        _scratches[pid] = tempfile.mkdtemp(prefix="forebay-dvc-")
        Finalize(None, shutil.rmtree, args=(_scratches[pid], True), exitpriority=1)
    return _scratches[pid]


def _clean_clones_at_exit(repo: Any) -> None:
    """DVC clones into temporary directories, and only its command line deletes them."""
    from dvc.repo.open_repo import CLONES, clean_repos

    if repo.url and CLONES:
        Finalize(None, clean_repos, exitpriority=1)


def _serve(tasks: _Tasks) -> None:
    """Do the tasks of one revision in turn, holding on to none."""
    while (task := tasks.get()) is not None:
        future, call = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  the one who waits for the result gets it
                future.set_exception(error)
        del task, future, call


def _release(pid: int, tasks: _Tasks, opened: list[Any], scratch: str) -> None:
    """Let the thread clean up and end. The collector may call this at any moment: it takes no lock and waits not."""
    if os.getpid() != pid:  # a forked child drops what is its parent's
        return

    def clean() -> None:
        for filesystem in opened:
            filesystem.close()
            filesystem.repo.close()
        shutil.rmtree(scratch, ignore_errors=True)

    tasks.put((Future(), clean))
    tasks.put(None)


def measure(files: dict[str, Tracked]) -> dict[str, int | BaseException]:
    """Find the sizes of files: those that DVC does not record are asked for where the files lie, some at a time."""
    sizes: dict[str, int | BaseException] = {name: file.size for name, file in files.items() if file.size is not None}
    unknown = [name for name in files if name not in sizes]
    if len(unknown) < 2:
        sizes.update((name, _measured(files[name])) for name in unknown)
        return sizes
    with ThreadPoolExecutor(_SIZE_THREADS, thread_name_prefix="forebay-dvc-size") as threads:
        sizes.update(zip(unknown, threads.map(lambda name: _measured(files[name]), unknown), strict=True))
    return sizes


def _measured(file: Tracked) -> int | BaseException:
    """Return the size, or why it is not known: the caller names the file."""
    last: BaseException = FileNotFoundError(file.digest)
    for filesystem, path in file.places:
        try:
            return int(filesystem.info(path)["size"])
        except FileNotFoundError as error:
            last = error
        except Exception as error:  # noqa: BLE001  the filesystem of a remote may be anybody's, and so are its errors
            return error
    return last


def _tracked(info: dict[str, Any]) -> Tracked | None:
    """Translate what DVC tells about a file. What is in git comes first, as in DVC's own reads."""
    inside = info.get("fs_info")
    if inside:
        if not modes.S_ISREG(inside["mode"]):  # a symbolic link or a submodule
            return None
        return Tracked(Version(f"blob:{inside['sha']}"), int(inside["size"]), ())
    entry = info["dvc_info"].get("entry")
    if entry is None or not entry.hash_info or entry.hash_info.isdir or entry.hash_info.name not in _HASHES:
        return None
    places = _places(info["repo"], entry)
    version = Version(f"{entry.hash_info.name}:{entry.hash_info.value}")
    return Tracked(version, entry.meta.size if entry.meta else None, places) if places else None


def _places(repo: Any, entry: Any) -> tuple[tuple[Any, str], ...]:
    """Tell where objects of this hash lie: what is not named by its hash (an import, say) is none of them."""
    from dvc_data.index import ObjectStorage, StorageKeyError

    try:
        storages = repo.index.data["repo"].storage_map[entry.key]
    except StorageKeyError:
        return ()
    found = [storage.get(entry) for storage in (storages.cache, storages.remote) if isinstance(storage, ObjectStorage)]
    digest = entry.hash_info.value
    return tuple((fs, path) for fs, path in found if path.endswith(f"{digest[:2]}/{digest[2:]}"))


def _load_dvc() -> tuple[Any, Any, Callable[[str], dict[str, Any]]]:
    """Import DVC (a third of a second), and keep it from printing.

    Raises:
        SourceConfigError: If it is not installed.
    """
    first = "dvc" not in sys.modules
    try:
        import dvc.api
        import dvc.config
        import dvc.repo
    except ImportError as error:
        raise SourceConfigError("a dvc:// source needs DVC: pip install 'forebay[dvc]'") from error
    if first:  # its import set up handlers that print to standard output; whoever imported it before us wants them
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.setLevel(logging.WARNING)

    def read_config(directory: str) -> dict[str, Any]:
        return dict(dvc.config.Config(directory, local_dvc_dir=directory))

    return dvc.api.DVCFileSystem, dvc.repo.Repo, read_config
