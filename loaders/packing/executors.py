"""Executors of clusters, by URL: `dask://host:port`, `ray://host:port`, `ray://auto`."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from loaders.errors import PackExecutorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

_CONNECT_SECONDS = 30


class Reached(NamedTuple):
    """An executor and how many tasks it works on at a time."""

    executor: Executor
    slots: int


@contextmanager
def reach_executor(url: str) -> Iterator[Reached]:
    """Connect to a cluster, and leave it at the end.

    Raises:
        PackExecutorError: If the URL is of no kind that is known, its package is not installed, or nobody answers.
    """
    scheme, separator, address = url.partition("://")
    if scheme not in _SCHEMES or not separator or not address:
        raise PackExecutorError(f"{url}: expected an executor such as dask://host:8786, ray://host:10001 or ray://auto")
    with _SCHEMES[scheme](address) as reached:
        yield reached


@contextmanager
def _dask(address: str) -> Iterator[Reached]:
    distributed = _package("distributed", extra="dask")
    try:
        client: Any = distributed.Client(f"tcp://{address}", timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise PackExecutorError(f"dask://{address}: no scheduler answers: {error}") from error
    with client:
        slots = sum(client.ncores().values())
        if not slots:
            raise PackExecutorError(
                f"dask://{address}: the scheduler has no workers; start some: dask worker {address}"
            )
        yield Reached(client.get_executor(pure=False), slots)


@contextmanager
def _ray(address: str) -> Iterator[Reached]:
    ray = _package("ray", extra="ray")
    is_ours = not ray.is_initialized()
    if is_ours:
        place = "auto" if address == "auto" else f"ray://{address}"
        try:
            ray.init(address=place, log_to_driver=False)
        except (ConnectionError, OSError, ValueError, TimeoutError) as error:
            raise PackExecutorError(f"ray://{address}: no cluster answers: {error}") from error
    try:
        yield Reached(RayExecutor(ray), int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if is_ours:
            ray.shutdown()


def _package(name: str, *, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise PackExecutorError(f"{extra}:// needs the extra {extra}: pip install 'forebay[{extra}]'") from error


class RayExecutor(Executor):
    """Submits to the Ray cluster that this process is connected to; a task whose worker dies is tried again by Ray.

    Args:
        ray: The module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Any, Any] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `concurrent.futures.Executor.submit`."""
        if fn not in self._remote:
            self._remote[fn] = self._ray.remote(max_retries=3)(fn)
        future: Future[Any] = self._remote[fn].remote(*args, **kwargs).future()
        return future


_SCHEMES: dict[str, Callable[[str], Any]] = {"dask": _dask, "ray": _ray}
