"""How a process that runs one command loads the large libraries: without what it does not need of them.

- pyarrow loads pandas with the first array that it makes, if that is installed: half a second, and a Ctrl-C in it is
  lost, for pyarrow then fails over half a pandas. Nothing here makes a DataFrame of a table.
- pyarrow.compute parses the documentation of a hundred classes to write that of its functions. Nobody reads it here.
- numpy loads what type checkers know of it, for one module annotates a few classes with it: a fifth of its time.
- numpy's OpenBLAS starts a thread per core, each of which spins for a while. Nothing here multiplies matrices.
- pydantic looks for plugins through all that is installed, once our models are loaded, if a command needs them.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder, SourceFileLoader
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec


class _NoPandas:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name == "pandas":
            raise ImportError("not needed here", name=name)


_MODELS = tuple(f"dataset_controller.{name}" for name in ("fields", "model", "operations", "runtime_model"))
_LEAN = {"numpy", "pyarrow", "pyarrow.compute", *_MODELS}


class _Lean:
    """Finds some modules as ever, but has them loaded by `_Loader`."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        del target
        spec = PathFinder.find_spec(name, path) if name in _LEAN else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Load a library, and pyarrow so far that it knows that there is no pandas."""
        if module.__name__ == "numpy":
            with _environment("OPENBLAS_NUM_THREADS", "1"), _without("numpy._typing", NDArray=_Array):
                super().exec_module(module)
        elif module.__name__ == "pyarrow.compute":
            with _without("pyarrow.vendored.docscrape", NumpyDocString=lambda text: {"Parameters": []}):
                super().exec_module(module)
        elif module.__name__ in _MODELS:
            with _environment("PYDANTIC_DISABLE_PLUGINS", "__all__"):
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
    sys.meta_path.insert(0, _Lean())


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


class _Array:
    """Stands for `numpy.typing.NDArray` in annotations that nobody reads."""

    def __class_getitem__(cls, item: object) -> type[_Array]:
        return cls


class _StandIn(ModuleType):
    """Has a few names of a module; all others it gets from the real one, which takes its place then."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def _without(module: str, **names: object) -> Iterator[None]:
    """Let a library load without one of its modules, which is loaded when somebody asks for it later."""
    if module in sys.modules:
        yield
        return
    stand_in = _StandIn(module)
    vars(stand_in).update(names)
    sys.modules[module] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]


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
