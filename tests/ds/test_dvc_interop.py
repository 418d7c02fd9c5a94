from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ds
from ds.application import run
from ds.dvc_exporting import _CacheWriter
from ds.settings import Settings
from tests.ds.said import Said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning import Entry

DVC = Path(sys.executable).with_name("dvc")

pytestmark = [
    pytest.mark.skipif(
        not DVC.exists() or shutil.which("git") is None, reason="NOT TESTED: dvc or git is not installed"
    ),
]

MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: {name}}}
spec:
  mounts:
    - name: dvc
      uri: dvc://objects
      path: ""
      options: {{places: [{places}]}}
  repo: {{uri: "file://{directory}/{name}"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{directory}/cache", capacity: 256Mi}}]
"""
PIPELINE = """\
stages:
  upper:
    wdir: work
    cmd: python -c "open('upper.txt', 'w').write(open('../single.bin').read().upper()); open('n.json', 'w').write('1')"
    deps: [../single.bin]
    outs: [upper.txt]
    metrics: [{n.json: {cache: false}}]
"""
SERVER = """\
import sys
from dvc.cli import main
for line in sys.stdin:
    code = main(line.split())
    print(f"\\nended with {code}", flush=True)
"""


class Project:
    """A git repository that uses DVC, with a directory as remote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server: subprocess.Popen[str] | None = None
        home = path.parent
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "HOME": str(home),
            "DVC_NO_ANALYTICS": "true",
            "DVC_SITE_CACHE_DIR": str(home / "site-cache"),
            "DVC_GLOBAL_CONFIG_DIR": str(home / "config"),
            "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": "2026-01-02T03:04:05+01:00",
            "GIT_COMMITTER_NAME": "Bob", "GIT_COMMITTER_EMAIL": "bob@example.org",
        }  # fmt: skip

    def dvc(self, *lines: str) -> str:
        """Run DVC and return what it said, always in one process: under load it takes seconds to start."""
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, "-c", SERVER], cwd=self.path, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        said: list[str] = []
        for line in lines:
            self.server.stdin.write(f"{line}\n")
            self.server.stdin.flush()
            said.clear()
            while not (said and said[-1].startswith("ended with ")):
                said.append(self.server.stdout.readline())
                assert said[-1], (line, said)
            assert said[-1] == "ended with 0\n", (line, said)
        return "".join(said[:-1])

    def close(self) -> None:
        if self.server is not None:
            self.server.communicate(timeout=20)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def write(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


IMAGES = {f"data/images/{number:03}.bin": bytes([number]) * (number + 1) for number in range(200)}
SECOND = {"data/images/007.bin": b"seven", "data/images/new ü.txt": b"new", "data/images/empty": b""}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, dict[str, str]]]:
    """A project with a history: two commits and a tag on main, a branch, and a pipeline; everything is pushed."""
    directory = tmp_path_factory.mktemp("dvc")
    project = Project(directory / "project")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.dvc("init --quiet")
    project.write(
        {
            "README.md": b"no data",
            ".dvc/config": b"[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../remote\n",
        }
    )
    shas = {"empty": project.commit("nothing tracked yet")}
    project.write({**IMAGES, "single.bin": b"single"})
    project.dvc("add --quiet data/images single.bin", "push --quiet")
    shas["first"] = project.commit("first\n\nwith a body")
    project.git("tag", "-a", "v1", "-m", "a tag with a message")
    project.write({"README.md": b"still no data"})
    shas["words"] = project.commit("only words")
    project.git("checkout", "--quiet", "-b", "more")
    project.write({"dvc.yaml": PIPELINE.encode(), "work/.keep": b""})
    project.dvc("repro --quiet", "push --quiet")
    shas["more"] = project.commit("a pipeline")
    project.git("checkout", "--quiet", "main")
    project.write(SECOND)
    project.dvc("add --quiet data/images", "push --quiet")
    shas["second"] = project.commit("second")
    yield project, shas
    project.close()


class Shop:
    """Datasets that read a project's objects, and `ds` to run on them."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys

    def create(self, name: str, *places: Path) -> ds.Dataset:
        file = self.directory / f"{name}.yaml"
        listed = ", ".join(f'"file://{place}"' for place in places)
        file.write_text(MANIFEST.format(name=name, places=listed, directory=self.directory))
        ds.apply(file)
        return ds.Dataset(name, settings=Settings.of(os.environ))

    def ds(self, *arguments: str) -> Said:
        self.capsys.readouterr()
        code = run(list(arguments))
        captured = self.capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def ok(self, *arguments: str) -> Said:
        said = self.ds(*arguments)
        assert said.code == 0, said
        return said


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shop:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOREBAY_AUTHOR", "carol@example.org")
    return Shop(tmp_path, capsys)


def files_of(dataset: ds.Dataset, revision: str) -> dict[str, bytes]:
    found = {}
    for entry in dataset.tree(revision).entries():
        with dataset.open(entry.path, revision) as file:
            found[entry.path] = file.read()
    return found


def test_history_branches_and_tags_are_imported_and_bytes_read_from_the_remote(
    made: tuple[Project, dict[str, str]], shop: Shop
) -> None:
    project, shas = made
    dataset = shop.create("all", project.path.parent / "remote")
    said = shop.ok("dvc", "import", str(project.path), "--all", "--json")
    assert set(said.data["branches"]) == {"main", "more"}
    assert said.data["counts"] == {"commits": 3, "unchanged": 2, "missing": 0}
    first = {**IMAGES, "single.bin": b"single"}
    assert files_of(dataset, "v1") == first
    assert files_of(dataset, "main") == {**first, **SECOND}
    assert files_of(dataset, "more") == {**first, "work/upper.txt": b"SINGLE"}
    commit = dataset.repository.commit(dataset.resolve("v1"))
    assert commit.meta == {"dvc": {"git": shas["first"]}}
    assert (commit.author, commit.committer) == ("Ada <ada@example.org>", "Bob <bob@example.org>")
    assert (commit.authored_at, commit.message) == ("2026-01-02T02:04:05.000Z", "first\n\nwith a body\n")
    assert dataset.repository.commit(dataset.resolve("main")).parents == (dataset.resolve("v1"),)
    entry = dataset.tree("main").get("data/images/007.bin")
    assert entry is not None
    assert (entry.store, entry.source) == ("dvc://objects", f"md5:{hashlib.md5(b'seven').hexdigest()}")
    assert shop.ok("cat", "all@main/data/images/007.bin").out == "seven"
    assert shop.ok("import", "-d", "all").out.startswith("nothing changed")


def test_an_export_is_up_to_date_for_dvc_and_importing_it_gives_the_same_tree(
    made: tuple[Project, dict[str, str]], shop: Shop
) -> None:
    project, _ = made
    imported = shop.create("origin", project.path.parent / "remote")
    shop.ok("dvc", "import", str(project.path))
    said = shop.ok("export", "dvc", "main", str(shop.directory / "out"), "--json")
    assert said.data["outputs"] == ["data", "single.bin"]
    assert said.data["files"] == 203
    out = Project(shop.directory / "out")
    assert "Data and pipelines are up to date." in project.dvc(f"--cd {out.path} status")
    assert (out.path / "data/images/007.bin").read_bytes() == b"seven"
    assert not out.git("status", "--porcelain", "data/images")
    out.commit("exported")

    again = shop.create("again", out.path / ".dvc" / "cache")
    shop.ok("dvc", "import", str(out.path), "--branch", "main", "-d", "again")
    assert again.tree("main").id == imported.tree("main").id
    assert files_of(again, "main") == files_of(imported, "main")


def test_what_was_added_from_disk_is_exported_and_further_rounds_change_nothing(
    made: tuple[Project, dict[str, str]], shop: Shop
) -> None:
    project, _ = made
    out = Project(shop.directory / "out")
    dataset = shop.create("local", out.path / ".dvc" / "cache")
    files = {"a/1": b"one", "a/b/2": b"", "top [1].txt": b"top", "same": b"one"}
    with dataset.repository.transaction("main", message="m", author="a") as transaction:
        for path, data in files.items():
            transaction.add(path, data)
    first = shop.ok("export", "dvc", "main", str(out.path), "--link", "hardlink", "--json")
    assert first.data["copied"] == 4
    assert "Data and pipelines are up to date." in project.dvc(f"--cd {out.path} status")
    repeated = shop.ok("export", "dvc", "main", str(out.path), "--json")
    assert repeated.data["copied"] == 0
    out.commit("exported")
    shop.ok("dvc", "import", str(out.path), "--rev", "HEAD", "--branch", "external")
    assert files_of(dataset, "external") == files
    pushed = dataset.tree("external").id
    shop.ok("export", "dvc", "external", str(shop.directory / "next"))
    following = Project(shop.directory / "next")
    following.commit("again")
    other = shop.create("other", following.path / ".dvc" / "cache")
    shop.ok("dvc", "import", str(following.path), "--rev", "HEAD", "--branch", "external", "-d", "other")
    assert other.tree("external").id == pushed


def test_exporting_the_next_version_removes_what_it_has_not_and_spares_foreign_files(shop: Shop) -> None:
    out = shop.directory / "out"
    dataset = shop.create("local", out / ".dvc" / "cache")
    with dataset.repository.transaction("main", message="m", author="a") as transaction:
        for path in ("data/1", "data/2", "gone"):
            transaction.add(path, path.encode())
    shop.ok("export", "dvc", "main", str(out))
    with dataset.repository.transaction("main", message="m", author="a") as transaction:
        transaction.remove("data/2")
        transaction.remove("gone")
        transaction.add("data/1", b"changed")
    (out / "data" / "mine").write_text("nobody else has this")
    (out / "notes.txt").write_text("mine")
    said = shop.ds("export", "dvc", "main", str(out))
    assert (said.code, "data/mine" in said.err) == (1, True)
    assert (out / "data" / "1").read_bytes() == b"data/1"
    (out / "data" / "mine").unlink()
    shop.ok("export", "dvc", "main", str(out))
    assert (out / "data" / "1").read_bytes() == b"changed"
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == [
        "data",
        "data.dvc",
        "notes.txt",
    ]

    (out / "data.dvc").write_text("outs: []\n")
    assert "data.dvc" in shop.ds("export", "dvc", "main", str(out)).err
    shutil.rmtree(out / "data")
    (out / "data.dvc").unlink()
    (out / "data").symlink_to(shop.directory)
    assert shop.ds("export", "dvc", "main", str(out)).code == 1
    assert "not empty" in shop.ds("export", "dvc", "main", str(shop.directory)).err


def test_an_export_that_broke_off_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    out = shop.directory / "out"
    dataset = shop.create("local", out / ".dvc" / "cache")
    with dataset.repository.transaction("main", message="m", author="a") as transaction:
        for number in range(20):
            transaction.add(f"data/{number:02}", b"%d" % number)
    copy = _CacheWriter._copy

    def failing(self: _CacheWriter, entry: Entry, target: Path) -> str:
        if entry.path == "data/11":
            raise KeyboardInterrupt
        return copy(self, entry, target)

    monkeypatch.setattr(_CacheWriter, "_copy", failing)
    assert shop.ds("export", "dvc", "main", str(out)).code == 130
    assert not (out / "data.dvc").exists()
    monkeypatch.setattr(_CacheWriter, "_copy", copy)
    assert shop.ok("export", "dvc", "main", str(out), "--json").data["copied"] <= 9
    assert (out / "data" / "11").read_bytes() == b"11"
    assert not (out / ".dvc" / "cache" / "forebay-tmp").exists()


def test_a_damaged_object_is_not_exported(shop: Shop) -> None:
    project = Project(shop.directory / "project")
    shop.create("damaged", project.path / ".dvc" / "cache")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    track(project, {"data/a": b"a"})
    project.commit("one")
    shop.ok("dvc", "import", str(project.path))
    (project.path / f".dvc/cache/files/md5/{A[:2]}/{A[2:]}").write_bytes(b"b")
    said = shop.ds("export", "dvc", "main", str(shop.directory / "out"))
    assert (said.code, A in said.err) == (1, True)
    assert not (shop.directory / "out" / "data.dvc").exists()


def test_importing_again_brings_only_new_commits(shop: Shop) -> None:
    project = Project(shop.directory / "project")
    cache = project.path / ".dvc" / "cache"
    dataset = shop.create("growing", cache)
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    track(project, {"data/a": b"a", "data/b": b"b"})
    project.commit("one")
    shop.ok("dvc", "import", str(project.path), "--to", "sub")
    before = dataset.resolve("main")
    assert shop.ok("dvc", "import", str(project.path), "--to", "sub", "--json").data["counts"]["commits"] == 0
    track(project, {"data/a": b"A", "data/c": b"c"})
    project.commit("two")
    said = shop.ok("dvc", "import", str(project.path), "--to", "sub", "--json")
    assert said.data["counts"]["commits"] == 1
    commit = dataset.repository.commit(dataset.resolve("main"))
    assert commit.parents == (before,)
    assert (commit.stats.added, commit.stats.modified, commit.stats.deleted) == (1, 1, 1)
    assert files_of(dataset, "main") == {"sub/data/a": b"A", "sub/data/c": b"c"}

    with dataset.repository.transaction("main", message="by hand", author="a") as transaction:
        transaction.add("mine", b"mine")
    shop.ok("dvc", "import", str(project.path), "--to", "sub")
    track(project, {"data/a": b"AA"})
    project.commit("three")
    said = shop.ds("dvc", "import", str(project.path), "--to", "sub")
    assert (said.code, "merge" in said.err) == (1, True)
    shop.ok("dvc", "import", str(project.path), "--to", "sub", "--branch", "dvc")
    shop.ok("merge", "dvc")
    assert files_of(dataset, "main") == {"mine": b"mine", "sub/data/a": b"AA"}


def test_a_first_import_goes_on_top_of_what_the_branch_has(shop: Shop) -> None:
    project = Project(shop.directory / "project")
    dataset = shop.create("mixed", project.path / ".dvc" / "cache")
    with dataset.repository.transaction("main", message="by hand", author="a") as transaction:
        transaction.add("mine", b"mine")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    track(project, {"data/a": b"a"})
    project.commit("one")
    shop.ok("dvc", "import", str(project.path), "--to", "sub")
    assert files_of(dataset, "main") == {"mine": b"mine", "sub/data/a": b"a"}


def track(project: Project, files: dict[str, bytes]) -> None:
    """Do what `dvc add data` does, in DVC's own words."""
    rows = []
    for name, data in sorted(files.items()):
        digest = hashlib.md5(data).hexdigest()
        rows.append(f'{{"md5": "{digest}", "relpath": "{name.removeprefix("data/")}"}}')
        project.write({f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}": data})
    listing = f"[{', '.join(rows)}]".encode()
    digest = hashlib.md5(listing).hexdigest()
    project.write(
        {f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}.dir": listing, ".gitignore": b"/data\n/.dvc/cache\n"}
    )
    project.write({"data.dvc": f"outs:\n- md5: {digest}.dir\n  hash: md5\n  path: data\n".encode()})


A = "0cc175b9c0f1b6a831c399e269772661"
CLOUD = f"outs:\n- {{md5: {A}, path: x, size: 1, cloud: {{r: {{version_id: v}}}}}}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x.dvc": f"outs:\n- {{md5: {A}, hash: md5, path: ../x}}"}, "outside of the repository"),
        ({"x.dvc": f"outs:\n- {{md5: {A}, hash: md5, path: /etc/passwd}}"}, "outside of the repository"),
        ({"x.dvc": f"outs:\n- {{md5: {A}, hash: md5, path: 's3://b/x'}}"}, "outside of the repository"),
        ({"x.dvc": f"wdir: ../..\nouts:\n- {{md5: {A}, hash: md5, path: x}}"}, "outside of the repository"),
        ({"x.dvc": f"outs:\n- {{md5: {A}, hash: md5, path: .git/hooks}}"}, "cannot be an output"),
        ({"x.dvc": "outs:\n- {md5: ../../etc/passwd, hash: md5, path: x}"}, "no md5"),
        ({"x.dvc": "!!python/object/apply:os.system ['true']"}, "no YAML"),
        ({"x.dvc": "[" * 100000}, "nested more than"),
        ({"x.dvc": f"outs:\n- {{md5: {A}, path: x}}\n- {{md5: {A}, path: x/y}}"}, "tracked by itself"),
        ({"x.dvc": f"outs:\n- {{md5: {A}, hash: md5, path: gone}}"}, "no place of the dvc://objects mount has"),
        ({"dvc.lock": "schema: '2.0'\nstages: [1]"}, "expected a mapping"),
        ({"dvc.lock": f"a: {{outs: [{{path: ../../x, md5: {A}}}]}}"}, "outside of the repository"),
        ({"x.dvc": CLOUD, ".dvc/config": "['remote \"r\"']\nurl = s3://b/p\n"}, "s3://b/p/x: add a mount"),
        ({"x.dvc": CLOUD, ".dvc/config": "['remote \"r\"']\nurl = /etc\n"}, "is not a source URI"),
        ({"x.dvc": CLOUD}, "no remote 'r'"),
    ],
)  # fmt: skip
def test_what_a_project_must_not_say_is_refused(files: dict[str, str], said: str, shop: Shop) -> None:
    project = Project(shop.directory / "project")
    dataset = shop.create("bad", shop.directory / "nothing")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.write({name: text.encode() for name, text in files.items()})
    project.commit("bad")
    answer = shop.ds("dvc", "import", str(project.path))
    assert answer.code in (2, 3), answer
    assert said in answer.err
    assert dataset.head() is None


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (b'[{"md5": "0cc175b9c0f1b6a831c399e269772661", "relpath": "../../x"}]', "no path of a file"),
        (b'[{"md5": "x", "relpath": "x"}]', "no md5"),
        (b"[" * 100000, "damaged"),
        (b'{"a": 1}', "damaged"),
        (None, f"expected md5:{A}.dir"),
    ],
)
def test_a_bad_listing_is_refused(listing: bytes | None, said: str, shop: Shop) -> None:
    project = Project(shop.directory / "project")
    shop.create("bad", shop.directory / "objects")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    digest = A if listing is None else hashlib.md5(listing).hexdigest()
    place = shop.directory / "objects" / "files" / "md5" / digest[:2] / f"{digest[2:]}.dir"
    place.parent.mkdir(parents=True)
    place.write_bytes(listing or b"[]")
    project.write({"x.dvc": f"outs:\n- {{md5: {digest}.dir, hash: md5, path: x}}".encode()})
    project.commit("bad")
    answer = shop.ds("dvc", "import", str(project.path))
    assert (answer.code, said in answer.err) == (1 if listing is None else 2, True), answer


def test_arguments_that_do_not_fit_are_answered(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    shop.create("here", tmp_path / "nothing")
    assert "is no git repository" in shop.ds("dvc", "import", str(tmp_path / "plain")).err
    assert "neither a directory nor the URL" in shop.ds("dvc", "import", "--", "-oProxyCommand=x:y").err
    project = Project(tmp_path / "project")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.write({".dvc/config": b"['remote \"s\"']\n    url = s3://bucket/dvc\n[core]\n    remote = s\n"})
    project.commit("one")
    assert "no revision 'none'" in shop.ds("dvc", "import", str(project.path), "--rev", "none").err
    assert "leave out" in shop.ds("dvc", "import", str(project.path), "--all", "--rev", "main").err
    manifest = tmp_path / "here.yaml"
    manifest.write_text(
        MANIFEST.format(name="here", places="x", directory=tmp_path).replace("  mounts:", "  mounts: []\n_:")
    )
    text = manifest.read_text()
    manifest.write_text(text[: text.index("_:")] + text[text.index("  repo:") :])
    shop.ok("apply", "-f", str(manifest))
    assert '"s3://bucket/dvc"]' in shop.ds("dvc", "import", str(project.path)).err


def test_missing_files_are_left_out_when_told(shop: Shop) -> None:
    project = Project(shop.directory / "project")
    dataset = shop.create("holes", project.path / ".dvc" / "cache")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    track(project, {"data/a": b"a", "data/b": b"b"})
    project.commit("one")
    (project.path / f".dvc/cache/files/md5/{A[:2]}/{A[2:]}").unlink()
    answer = shop.ds("dvc", "import", str(project.path))
    assert (answer.code, "data/a" in answer.err) == (3, True)
    assert shop.ok("dvc", "import", str(project.path), "--skip-missing", "--json").data["counts"]["missing"] == 1
    assert files_of(dataset, "main") == {"data/b": b"b"}


def test_a_clone_by_url_is_fetched_again(shop: Shop) -> None:
    project = Project(shop.directory / "project")
    dataset = shop.create("url", project.path / ".dvc" / "cache")
    project.path.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    track(project, {"data/a": b"a"})
    project.commit("one")
    project.git("branch", "other")
    said = shop.ok("dvc", "import", f"file://{project.path}", "--all", "--json")
    assert set(said.data["branches"]) == {"main", "other"}
    track(project, {"data/a": b"b"})
    project.commit("two")
    project.git("branch", "-D", "other")
    said = shop.ok("dvc", "import", f"file://{project.path}", "--all", "--json")
    assert set(said.data["branches"]) == {"main"}
    assert files_of(dataset, "main") == {"data/a": b"b"}
