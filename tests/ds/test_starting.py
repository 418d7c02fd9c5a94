"""What `ds` loads before it does anything: not the libraries that it does not need."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import pytest

from ds.application import run
from ds.commands.table import COMMANDS

if TYPE_CHECKING:
    from tests.ds.shop import Shop

LOADED = """
import sys, ds.cli
sys.argv = ["ds", *sys.argv[1:]]
try:
    ds.cli.main()
finally:
    import json
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
OWN = {"cache_runtime", "dataset_controller", "loaders", "sources", "versioning"}
SLOW = {"aiohttp", "botocore", "obstore", "pandas", "prometheus_client", "s3fs", "torch"}


def loaded_modules(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, set(json.loads(done.stderr.splitlines()[-1]))


def loaded(*arguments: str) -> tuple[int, set[str]]:
    code, modules = loaded_modules(*arguments)
    return code, {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("arguments", ["--help", "cache --help", "--version", "nonsense"])
def test_help_and_mistakes_load_no_package(arguments: str) -> None:
    code, modules = loaded(*arguments.split())
    assert code == (2 if arguments == "nonsense" else 0)
    assert not modules & (SLOW | OWN | {"fsspec", "numpy", "pyarrow"})  # Typer itself loads pydantic


@pytest.mark.parametrize("arguments", ["status", "ls", "load --dry-run", "cache status"])
def test_commands_load_no_library_that_they_do_not_need(arguments: str, shop: Shop) -> None:
    shop.write("a/b", b"1", branch="main")
    code, modules = loaded(*arguments.split())
    assert code == 0
    assert not modules & SLOW


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy with two commits; the current directory."""
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert run(["init"]) == 0
    for number in range(2):
        Path(f"{number}").write_text(f"{number}")
        assert run(["add", "-A"]) == 0
        assert run(["commit", "-m", "more"]) == 0
    return tmp_path / "work"


@pytest.mark.parametrize("arguments", ["status", "log", "checkout main", "diff", "branch", "diff main~1..main"])
def test_commands_of_a_working_copy_load_little(arguments: str, work: Path) -> None:
    code, modules = loaded_modules(*arguments.split())
    assert code == 0
    packages = {module.partition(".")[0] for module in modules}
    assert packages & {*SLOW, "fsspec", "rich", "sqlite3", "pathspec"} == set()
    ours = {"cache_runtime.client", "cache_runtime.store.blockstore", "loaders.dataset", "loaders.packing"}
    ours |= {"sources.reading.steady", "versioning.hooks.code", "ds.importing", "ds.exits", "dataset_controller.model"}
    assert modules & ours == set()
    assert packages & {"pydantic", "yaml", "email", "pydoc"} == set()
    assert modules & {"pyarrow.parquet", "ssl", "numpy._typing", "numpy.ma", "importlib.metadata"} == set()


@pytest.mark.parametrize("arguments", ["add -A", "commit -m x", "log -n 1 --oneline", "checkout -b more", "ls"])
def test_plain_manifests_and_arguments_load_no_models(arguments: str, work: Path) -> None:
    (work / "new").write_text("new")
    if arguments.startswith("commit"):
        assert run(["add", "new"]) == 0
    code, modules = loaded_modules(*arguments.split())
    assert code == 0
    assert modules & {"pydantic", "yaml", "dataset_controller.model", "ds.exits", "loaders.errors"} == set()


def test_the_command_ends_as_python_does_but_takes_no_object_down(work: Path) -> None:
    """Callbacks of others run, output is written, and the code is the command's; other programs end as ever."""
    script = "import atexit, sys\nfrom ds.cli import main\n"
    script += "import threading, time\n"
    script += "threading.Thread(target=lambda: (time.sleep(0.2), sys.stdout.write('thread '))).start()\n"
    script += "import gc\ngc.disable = lambda: atexit.register(sys.stdout.write, 'callback ')\n"  # `main` calls it
    script += "sys.argv = ['ds', 'checkout', 'nonsuch']\n"
    for call in ("main()", "command = main; del main; command()"):
        done = subprocess.run(
            [sys.executable, "-c", script + call], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 3
        assert "no such revision" in done.stderr
        assert done.stdout.split() == ["thread", "callback"]


@pytest.mark.parametrize("arguments", [["log", "-n", "0"], ["log", "-n", "x"], ["log", "-n", "1.5"]])
def test_what_is_wrong_is_said_by_typer_as_ever(arguments: list[str], work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from ds.cli import main; main()", *arguments],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"see: ds " in done.stderr


def test_a_working_copy_finds_tree_nodes_that_an_earlier_command_has_read(work: Path) -> None:
    nodes = work.parent / "home" / "nodes"
    assert list(nodes.glob("*/*.arrow"))
    code, modules = loaded_modules(*["diff", "main~1..main"])
    assert code == 0
    assert "pyarrow.parquet" not in modules  # no node was decoded
    rmtree(nodes)
    code, modules = loaded_modules(*["diff", "main~1..main"])
    assert code == 0
    assert "pyarrow.parquet" in modules
    assert list(nodes.glob("*/*.arrow"))


def test_commands_look_for_no_plugins_of_pydantic(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "plugins" / "loud-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[pydantic]\nloud = loud:plugin\n")
    (about.parent / "loud.py").write_text(
        "class plugin:\n    new_schema_validator = lambda *given: (None, None, None)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(about.parent), prepend=os.pathsep)
    with Path(".ds/local/dataset.yaml").open("a") as manifest:
        manifest.write("  samples:\n    key: stem\n")  # it takes the models to read this
    code, modules = loaded_modules("status")
    assert (code, "pydantic" in modules, "loud" in modules) == (0, True, False)
    probe = "import dataset_controller.model, sys; assert 'loud' in sys.modules"  # elsewhere they are the user's affair
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


def test_what_a_process_is_told_of_its_surroundings_is_as_the_user_left_it(work: Path) -> None:
    probe = "import os, ds.arrow, sys\nds.arrow.load_leanly()\nbefore = dict(os.environ)\nimport numpy, pyarrow\n"
    probe += "assert os.environ == before and 'PYDANTIC_DISABLE_PLUGINS' not in before\n"
    probe += "import pyarrow.compute\nassert pyarrow.compute.sum([1, 2]).as_py() == 3\n"
    probe += "from pyarrow.vendored.docscrape import NumpyDocString\nassert isinstance(NumpyDocString, type)\n"
    probe += "assert 'OPENBLAS_NUM_THREADS' not in before\nassert pyarrow.array([1]) and 'pandas' not in sys.modules\n"
    probe += "import pandas"
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_NUM_THREADS", "PYDANTIC_DISABLE_PLUGINS")}
    subprocess.run([sys.executable, "-c", probe], env=environment, check=True, timeout=60)


@pytest.mark.parametrize("group", COMMANDS)
def test_help_says_what_the_commands_say(group: str) -> None:
    for name, (place, line) in COMMANDS[group].items():
        module, _, function = place.partition(":")
        command = getattr(import_module(f"ds.commands.{module}"), function)
        assert (inspect.getdoc(command) or "").splitlines()[0] == line, f"ds {group} {name}"
