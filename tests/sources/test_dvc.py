from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sources.dvc import DvcStore
from sources.dvc import store as dvc_store
from sources.dvc.revision import _scratches
from sources.errors import (
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.stores import LISTING_SCHEMA, ListDirectories

if TYPE_CHECKING:
    from collections.abc import Iterator

DVC = Path(sys.executable).with_name("dvc")
TOKEN = "ghp-hunter2-is-not-to-be-shown"

pytestmark = [
    pytest.mark.skipif(
        not DVC.exists() or shutil.which("git") is None, reason="NOT TESTED: dvc or git is not installed"
    ),
    # asyncio.iscoroutinefunction and the like, of what DVC imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # DVC leaves the sqlite connection of its index to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]


class Project:
    """A git repository with DVC data, its DVC cache and a directory as its DVC remote."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "project"
        self.remote = directory / "remote"
        self.remote.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "HOME": str(directory),
            "DVC_NO_ANALYTICS": "true",
            "DVC_SITE_CACHE_DIR": str(directory / "site-cache"),
            "DVC_GLOBAL_CONFIG_DIR": str(directory / "config"),
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
        }  # fmt: skip
        self.path.mkdir()
        self.run("git", "init", "--quiet", "--initial-branch=main")
        self.run(str(DVC), "init", "--quiet")
        self.run(str(DVC), "remote", "add", "--quiet", "--default", "storage", "../remote")

    def run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    def write(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def commit(self, *tracked: str, message: str = "change") -> None:
        if tracked:
            self.run(str(DVC), "add", "--quiet", *tracked)
            self.run(str(DVC), "push", "--quiet")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def key(self, name: str) -> str:
        return f"{self.path}/{name}"[1:]

    def object_of(self, data: bytes, *, root: Path) -> Path:
        digest = hashlib.md5(data).hexdigest()
        return root / "files" / "md5" / digest[:2] / digest[2:]

    def open(self, rev: str = "main", **options: object) -> DvcStore:
        return DvcStore.open(f"dvc://{self.path}/data", {"rev": rev, **options})


FILES = {
    "data/images/1.bin": bytes(range(256)) * 40,
    "data/images/2.bin": b"two" * 100,
    "data/images/a b/ü.txt": b"nested",
    "data/images/a/x": b"x",
    "data/images/a.txt": b"around the slash",
    "data/images/empty": b"",
    "single.bin": b"single",
}


def check_files(store: DvcStore, project: Project) -> None:
    for name, data in FILES.items():
        stat = store.stat(project.key(name))
        assert (stat.size, stat.version) == (len(data), f"md5:{hashlib.md5(data).hexdigest()}")
        assert bytes(store.read(stat.key, start=0, length=len(data), version=stat.version)) == data
        assert (
            bytes(store.read(stat.key, start=1, length=len(data) // 2, version=stat.version))
            == (data[1 : 1 + len(data) // 2])
        )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that no test changes."""
    project = Project(tmp_path_factory.mktemp("dvc"))
    project.write({**FILES, "README.md": b"in git\n", "notes/deep/n.txt": b"note"})
    (project.path / "link").symlink_to("README.md")
    project.commit("data/images", "single.bin")
    project.run("git", "tag", "v1.0")
    return project


@pytest.fixture
def project(shared: Project, tmp_path: Path) -> Project:
    """A copy of it, to be changed."""
    shutil.copytree(shared.path, tmp_path / "project", symlinks=True)
    shutil.copytree(shared.remote, tmp_path / "remote")
    copy = Project.__new__(Project)
    copy.path, copy.remote, copy.environment = tmp_path / "project", tmp_path / "remote", shared.environment
    return copy


@pytest.fixture
def store(shared: Project) -> Iterator[DvcStore]:
    opened = shared.open("v1.0")
    yield opened
    opened.close()


def test_files_of_dvc_are_listed_in_byte_order_with_hash_and_size(store: DvcStore, shared: Project) -> None:
    listed = list(store.list(shared.key("data/images/")))
    assert [stat.key for stat in listed] == sorted(
        (shared.key(name) for name in FILES if name.startswith("data/")), key=str.encode
    )
    assert listed == [store.stat(stat.key) for stat in listed]


def test_a_page_holds_what_lies_directly_in_a_directory(store: DvcStore, shared: Project) -> None:
    assert isinstance(store, ListDirectories)
    page = store.scan_directory(shared.key("data/images/"))
    assert page.files.schema == LISTING_SCHEMA
    assert page.files.column("key").to_pylist() == [
        shared.key(f"data/images/{name}") for name in ("1.bin", "2.bin", "a.txt", "empty")
    ]
    assert page.directories == [shared.key(f"data/images/{name}/") for name in ("a b", "a")]
    above = store.scan_directory(f"{shared.path.parent}/"[1:])
    assert (above.files.num_rows, above.directories) == (0, [shared.key("")])


def test_a_prefix_may_end_inside_of_a_name(store: DvcStore, shared: Project) -> None:
    keys = [stat.key for stat in store.list(shared.key("data/images/a"))]
    assert keys == [shared.key(f"data/images/{name}") for name in ("a b/ü.txt", "a.txt", "a/x")]


def test_files_of_git_are_pinned_by_their_blob(store: DvcStore, shared: Project) -> None:
    stat = store.stat(shared.key("README.md"))
    blob = hashlib.sha1(b"blob 7\0in git\n").hexdigest()
    assert (stat.size, stat.version) == (7, f"blob:{blob}")
    assert bytes(store.read(stat.key, start=3, length=4, version=stat.version)) == b"git\n"
    assert [found.key for found in store.list(shared.key("notes/"))] == [shared.key("notes/deep/n.txt")]


def test_what_has_no_hash_is_left_out_and_told(
    store: DvcStore, shared: Project, caplog: pytest.LogCaptureFixture
) -> None:
    names = [stat.key[len(shared.key("")) :] for stat in store.list(shared.key(""))]
    assert "link" not in names
    assert "1 files of" in caplog.text
    with pytest.raises(SourceConfigError, match="cannot be pinned"):
        store.stat(shared.key("link"))


def test_ranges_are_read_from_the_cache(store: DvcStore, shared: Project) -> None:
    check_files(store, shared)
    buffer = memoryview(bytearray(10))
    pinned = store.stat(shared.key("data/images/1.bin"))
    store.read_into(pinned.key, start=250, buffer=buffer, version=pinned.version)
    assert bytes(buffer) == FILES["data/images/1.bin"][250:260]


def test_ranges_are_read_from_the_remote_where_the_cache_is_empty(project: Project) -> None:
    shutil.rmtree(project.path / ".dvc" / "cache")
    store = project.open()
    check_files(store, project)
    assert len(list(store.list(project.key("data/")))) == 7  # six of DVC's, and git's .gitignore
    store.close()
    objects = project.path / ".dvc" / "cache" / "files" / "md5"
    kept = [path.name for path in objects.rglob("*") if path.is_file()]
    assert all(name.endswith(".dir") for name in kept)  # the listing; the data were not copied


def test_what_is_nowhere_is_told_and_not_asked_for_again(project: Project) -> None:
    data = FILES["data/images/2.bin"]
    pinned = project.open().stat(project.key("data/images/2.bin"))
    for root in (project.path / ".dvc" / "cache", project.remote):
        project.object_of(data, root=root).unlink()
    store = project.open()
    for call in (
        lambda: store.read(pinned.key, start=0, length=3, version=pinned.version),
        lambda: store.stat(pinned.key),
        lambda: list(store.list(project.key("data/images/"))),
    ):
        with pytest.raises(SourceUnavailableError, match=r"neither DVC's cache nor its remote.*dvc push") as caught:
            call()
        assert not caught.value.retryable


def test_a_missing_listing_of_a_directory_is_not_an_empty_one(project: Project) -> None:
    shutil.rmtree(project.path / ".dvc" / "cache")
    shutil.rmtree(project.remote / "files")
    with pytest.raises(SourceUnavailableError, match="neither DVC's cache nor its remote"):
        list(project.open().list(project.key("data/images/")))


def test_a_damaged_object_is_refused_when_read_whole(project: Project) -> None:
    data = FILES["data/images/2.bin"]
    cached = project.object_of(data, root=project.path / ".dvc" / "cache")
    cached.chmod(0o644)
    cached.write_bytes(data[::-1])
    store = project.open()
    pinned = store.stat(project.key("data/images/2.bin"))
    with pytest.raises(SourceChangedError) as caught:
        store.read(pinned.key, start=0, length=pinned.size, version=pinned.version)
    assert caught.value.expected == pinned.version
    assert caught.value.found == f"md5:{hashlib.md5(data[::-1]).hexdigest()}"


def test_a_moved_branch_is_a_change_and_a_tag_is_not(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_store, "_LOCAL_REFRESH_SECONDS", 0.0)
    branch, tag = project.open("main"), project.open("v1.0")
    keys = [project.key(name) for name in ("data/images/2.bin", "README.md", "single.bin")]
    pinned = [branch.stat(key) for key in keys]
    project.write({"data/images/2.bin": b"newer", "README.md": b"newer"})
    (project.path / "single.bin").unlink()
    project.run("git", "rm", "--quiet", "single.bin.dvc")
    project.commit("data/images")
    for stat in pinned:
        with pytest.raises(SourceChangedError) as caught:
            branch.read(stat.key, start=0, length=2, version=stat.version)
        found = "gone" if stat.key.endswith("single.bin") else branch.stat(stat.key).version
        assert (caught.value.expected, caught.value.found) == (stat.version, found)
        assert tag.stat(stat.key) == stat
        assert len(bytes(tag.read(stat.key, start=0, length=2, version=stat.version))) == 2


def test_a_branch_that_moves_within_a_read_changes_none_of_its_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = project.open()
    pinned = store.stat(project.key("README.md"))
    find = store._find

    def move_after(*found_in: Any) -> Any:
        found = find(*found_in)
        monkeypatch.setattr(store, "_find", find)
        project.write({"README.md": b"newer!\n"})
        project.commit()
        monkeypatch.setattr(dvc_store, "_LOCAL_REFRESH_SECONDS", 0.0)
        assert store.stat(pinned.key).version != pinned.version  # as another thread may ask meanwhile
        return found

    monkeypatch.setattr(store, "_find", move_after)
    assert bytes(store.read(pinned.key, start=0, length=7, version=pinned.version)) == b"in git\n"


def test_a_store_that_is_closed_lets_its_readers_end(store: DvcStore, shared: Project) -> None:
    key = shared.key("README.md")
    closing = threading.Event()

    def read(_: int) -> bytes:
        while not closing.is_set():
            store.stat(key)
        return bytes(store.read(key, start=0, length=7, version=None))

    with ThreadPoolExecutor(4) as threads:
        reading = [threads.submit(read, number) for number in range(4)]
        for _ in range(5):
            store.close()
            time.sleep(0.05)
        closing.set()
        assert [one.result(timeout=30) for one in reading] == [b"in git\n"] * 4


def test_a_repository_is_fetched_by_its_url_and_again_for_what_is_newer(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run(str(DVC), "remote", "modify", "storage", "url", str(project.remote))
    project.commit()
    uri, options = "dvc://git.host/group/project.git/data", {"url": f"file://{project.path}", "rev": "main"}
    store = DvcStore.open(uri, options)
    assert store.id == "dvc://git.host"
    key = "group/project.git/data/images/2.bin"
    before = store.stat(key)
    assert bytes(store.read(key, start=0, length=300, version=before.version)) == FILES["data/images/2.bin"]
    project.write({"data/images/2.bin": b"newer"})
    project.commit("data/images")
    assert store.stat(key) == before  # the view may be a minute old
    monkeypatch.setattr(dvc_store, "_REFRESH_SECONDS", 0.0)
    after = store.stat(key)
    assert after.version == f"md5:{hashlib.md5(b'newer').hexdigest()}"
    with pytest.raises(SourceChangedError):
        store.read(key, start=0, length=300, version=before.version)


def test_a_fetch_reports_to_no_stream_that_was_there_once(project: Project) -> None:
    """dulwich keeps the standard error of its import, which a test, a notebook or a daemon may have closed since."""
    project.run(str(DVC), "remote", "modify", "storage", "url", str(project.remote))
    project.commit()
    code = """
import io, subprocess, sys
from contextlib import redirect_stderr
from ds.dvc_git import open_project
from sources.dvc import store as dvc_store

passing = io.TextIOWrapper(io.BytesIO())
with redirect_stderr(passing), open_project(sys.argv[1], clones=None):
    pass
passing.close()
dvc_store._REFRESH_SECONDS = 0.0
store = dvc_store.DvcStore.open("dvc://git.host/group/project.git", {"url": f"file://{sys.argv[1]}", "rev": "main"})
for _ in range(2):
    print(store.stat("group/project.git/data/images/2.bin").size)
    commit = ["git", "-C", sys.argv[1], "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm-", "--allow-empty"]
    subprocess.run(commit, check=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(project.path)], capture_output=True, text=True, timeout=60, check=False
    )
    size = len(FILES["data/images/2.bin"])
    assert (done.stdout, done.stderr) == (f"{size}\n{size}\n", "")


def test_what_is_missing_is_not_found(store: DvcStore, shared: Project) -> None:
    for name in ("nothing", "data", "single.bin/x", "data/images/nothing"):
        with pytest.raises(SourceNotFoundError, match="no such object"):
            store.stat(shared.key(name))
        with pytest.raises(SourceNotFoundError, match="no such object"):
            store.read(shared.key(name), start=0, length=1, version=None)
    for name in ("nothing/", "single.bin/", "../"):
        with pytest.raises(SourceNotFoundError):
            store.scan_directory(shared.key(name))
    with pytest.raises(SourceNotFoundError, match=r"no such revision: .* at nowhere"):
        list(shared.open("nowhere").list(shared.key("")))


def test_a_range_beyond_the_end_is_short(store: DvcStore, shared: Project) -> None:
    with pytest.raises(SourceUnavailableError, match="asked for 9 bytes") as caught:
        store.read(shared.key("single.bin"), start=0, length=9, version=None)
    assert not caught.value.retryable


def test_nothing_is_written(store: DvcStore, shared: Project) -> None:
    with pytest.raises(SourceConfigError, match="read-only"):
        store.put(shared.key("x"), b"")
    with pytest.raises(SourceConfigError, match="read-only"):
        store.delete(shared.key("single.bin"))


def test_threads_read_and_list_together(shared: Project) -> None:
    store = shared.open("v1.0")

    def work(_: int) -> int:
        check_files(store, shared)
        return len(list(store.list(shared.key("data/images/"))))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(24))) == [6] * 24


def test_forked_and_spawned_processes_read_the_same(store: DvcStore, shared: Project) -> None:
    expected = store.stat(shared.key("data/images/1.bin"))
    scratch = Path(_scratches[os.getpid()])
    for method in ("fork", "spawn"):
        context: Any = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        process = context.Process(target=_child, args=(store, expected.key, answers))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert answers.get() == (expected, FILES["data/images/1.bin"][:20])
    assert scratch.is_dir(), "the child left ours alone"
    check_files(store, shared)


def _child(store: DvcStore, key: str, answers: multiprocessing.SimpleQueue[object]) -> None:
    stat = store.stat(key)
    answers.put((stat, bytes(store.read(key, start=0, length=20, version=stat.version))))
    store.close()


def test_a_read_only_checkout_is_left_as_it_was(project: Project) -> None:
    def snapshot() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in project.path.rglob("*")}

    before = snapshot()
    store = project.open()
    check_files(store, project)
    store.close()
    assert snapshot() == before


def test_dvc_is_imported_when_a_source_is_read_and_prints_nothing(shared: Project) -> None:
    code = (
        "import sys, logging; from sources.dvc import DvcStore; "
        f"s = DvcStore.open('dvc://{shared.path}/data', {{'rev': 'v1.0'}}); assert 'dvc' not in sys.modules; "
        f"n = len(list(s.list('{shared.key('data/images/')}'))); "
        "assert not logging.getLogger('dvc').handlers; sys.exit(n != 6)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_missing_extra_is_named(shared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvc", None)
    monkeypatch.delitem(sys.modules, "dvc.api", raising=False)
    with pytest.raises(SourceConfigError, match=r"pip install 'forebay\[dvc\]'"):
        list(shared.open().list(""))


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("dvc://git.host/group/x/data", {}, "which part of the path is the repository"),
        ("dvc:///nowhere/at/all", {}, "which part of the path is the repository"),
        ("dvc://git.host/group/x.git/data", {"revision": "v1"}, "unknown option 'revision'; known: .*rev"),
        ("dvc://git.host/group/x/data", {"repo": "group/y"}, "does not start with it"),
        ("dvc://git.host/group/x.git/data", {"rev": 1}, "option rev is a string"),
        ("dvc://git.host/group/x.git/data", {"remote_config": "x"}, "option remote_config is a mapping"),
        (f"dvc://{TOKEN}@git.host/group/x.git/data", {}, "carries credentials"),
    ],
)
def test_a_wrong_uri_or_option_is_named(uri: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceConfigError, match=message) as caught:
        DvcStore.open(uri, options)
    assert TOKEN not in str(caught.value)


def test_the_name_of_a_store_is_the_same_however_it_is_reached() -> None:
    by_https = DvcStore.open("dvc://git.host/group/x.git/data", {"url": f"https://user:{TOKEN}@git.host/group/x.git"})
    by_ssh = DvcStore.open("dvc://git.host/group/x.git/data", {"url": "ssh://git@git.host/group/x.git"})
    by_default = DvcStore.open("dvc://git.host/group/x/data", {"repo": "group/x"})
    assert by_https.id == by_ssh.id == by_default.id == "dvc://git.host"
    assert pickle.loads(pickle.dumps(by_https)).id == by_https.id


def test_a_token_in_the_url_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"url": f"http://user:{TOKEN}@127.0.0.1:9/group/x.git", "remote_config": {"password": TOKEN}}
    store = DvcStore.open("dvc://git.host/group/x.git/data", options)
    with pytest.raises(SourceError) as caught:
        list(store.list("group/x.git/data/"))
    shown = f"{store!r}{vars(store)}{caught.value!r}{''.join(traceback.format_exception(caught.value))}"
    assert TOKEN not in shown
    assert TOKEN not in caplog.text
