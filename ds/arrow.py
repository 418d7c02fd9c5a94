"""pyarrow without pandas."""

from __future__ import annotations

import sys


class _NoPandas:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name == "pandas":
            raise ImportError("not needed here", name=name)


def keep_pandas_out() -> None:
    """Have pyarrow settle that there is no pandas: with the first array that it makes, it loads one that is installed.

    That takes half a second of every command, and a Ctrl-C in it is lost: pyarrow then fails over half a pandas. Only
    for a process of our own, where nothing makes a DataFrame of a table.
    """
    if "pandas" in sys.modules:
        return
    refusal = _NoPandas()
    sys.meta_path.insert(0, refusal)
    try:
        import pyarrow as pa  # it takes a while itself

        pa.array([0])
    finally:
        sys.meta_path.remove(refusal)
