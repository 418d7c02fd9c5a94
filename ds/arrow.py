"""How a process that runs one command loads the large libraries: without what it does not need of them.

- pyarrow loads pandas with the first array that it makes, if that is installed: half a second, and a Ctrl-C in it is
  lost, for pyarrow then fails over half a pandas. Nothing here makes a DataFrame of a table.
- pyarrow.compute parses the documentation of a hundred classes to write that of its functions. Nobody reads it here.
- numpy's OpenBLAS starts a thread per core, each of which spins for a while. Nothing here multiplies matrices.
- pydantic looks for plugins through all that is installed.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _NoPandas:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name == "pandas":
            raise ImportError("not needed here", name=name)


class _Lean:
    """Finds numpy, pyarrow and pyarrow.compute as ever, but has them loaded by `_Loader`."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        del target
        spec = PathFinder.find_spec(name, path) if name in ("numpy", "pyarrow", "pyarrow.compute") else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Load a library, and pyarrow so far that it knows that there is no pandas."""
        if module.__name__ == "numpy":
            with _environment("OPENBLAS_NUM_THREADS", "1"):
                super().exec_module(module)
        elif module.__name__ == "pyarrow.compute":
            with _undocumented():
                super().exec_module(module)
        else:
            super().exec_module(module)
            _settle_pandas(module)


def load_leanly() -> None:
    """Have numpy, pyarrow and pydantic loaded as above from now on. Only for a process of our own.

    What the user's environment says about them holds, and what this process starts sees that environment.
    """
    if "pyarrow" in sys.modules:
        _settle_pandas(sys.modules["pyarrow"])
    else:
        sys.meta_path.insert(0, _Lean())
    if "dataset_controller.model" not in sys.modules:  # its classes look for plugins; it loads numpy, too
        with _environment("PYDANTIC_DISABLE_PLUGINS", "__all__"):
            from dataset_controller import model

            del model


def _settle_pandas(pyarrow: ModuleType) -> None:
    """Let pyarrow find out that there is no pandas."""
    if "pandas" in sys.modules:
        return
    refusal = _NoPandas()
    sys.meta_path.insert(0, refusal)
    try:
        pyarrow.array([0])
    finally:
        sys.meta_path.remove(refusal)


@contextmanager
def _undocumented() -> Iterator[None]:
    """Let pyarrow.compute find no documentation of options."""
    try:
        from pyarrow.vendored import docscrape
    except ImportError:  # then this version of pyarrow parses none
        yield
        return
    parse = docscrape.NumpyDocString
    docscrape.NumpyDocString = lambda text: {"Parameters": []}
    try:
        yield
    finally:
        docscrape.NumpyDocString = parse


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable that the user has not set."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
