"""What settles a conflict without asking: strategies, and which paths each is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from versioning.columns import as_mask, compute
from versioning.errors import AttributesError
from versioning.patterns import path_regex

if TYPE_CHECKING:
    from numpy.typing import NDArray

Strategy = Literal["manual", "ours", "theirs", "union", "newest"]
"""How a path that both sides changed differently is settled.

manual: not at all, it is a conflict.
ours: our side stays, be it a file or a deletion.
theirs: their side is taken, be it a file or a deletion.
union: no file is lost: a file wins over a deletion; of two contents both are kept, theirs beside ours as
    `name~theirs-<8 hex digits>.ext`.
newest: the file with the later modification time. A conflict where one side deleted it, or a time is unknown, or both
    are the same.
"""
STRATEGIES: tuple[str, ...] = get_args(Strategy)
ATTRIBUTES_PATH = ".ds/attributes"
"""Where a tree says which strategy is for which paths."""
ATTRIBUTES_BYTES = 1 << 20
"""A larger file is refused."""
_MAX_DRIVERS = 10_000


@dataclass(frozen=True, slots=True)
class Driver:
    """A strategy for the paths of one pattern.

    Attributes:
        pattern: See `versioning.patterns.path_regex`.
        strategy: What settles their conflicts.
    """

    pattern: str
    strategy: Strategy

    def __post_init__(self) -> None:
        _regex(self.pattern)
        check_strategy(self.strategy, where=f"driver {self.pattern}:{self.strategy}")

    @classmethod
    def parse(cls, text: str) -> Driver:
        """Read `GLOB:STRATEGY`.

        Raises:
            AttributesError: If it is not of that form.
        """
        pattern, colon, strategy = text.rpartition(":")
        if not colon or not pattern:
            raise AttributesError(repr(text), reason="expected GLOB:STRATEGY, such as '*.json:theirs'")
        return cls(pattern, check_strategy(strategy, where=repr(text)))


@dataclass(frozen=True, slots=True)
class Strategies:
    """What settles the conflicts of a merge: of the drivers that fit a path the last, else the default."""

    default: Strategy = "manual"
    drivers: tuple[Driver, ...] = field(default=())

    def of(self, paths: Any) -> NDArray[Any]:
        """Return the strategy of each path, as an array of texts."""
        found: NDArray[Any] = np.full(len(paths), self.default, dtype=object)
        for driver in self.drivers:
            found[as_mask(compute.match_substring_regex(paths, _regex(driver.pattern)))] = driver.strategy
        return found


def check_strategy(text: str, *, where: str) -> Strategy:
    """Check that a text names a strategy.

    Raises:
        AttributesError: If it does not; `where` says where it was written.
    """
    if text not in STRATEGIES:
        raise AttributesError(where, reason=f"no merge strategy {text!r}; there are {', '.join(STRATEGIES)}")
    return cast("Strategy", text)


def parse_attributes(data: bytes, *, where: str = ATTRIBUTES_PATH) -> tuple[Driver, ...]:
    """Read the lines `PATTERN merge=STRATEGY` of a tree's attributes.

    Empty lines and those that begin with "#" mean nothing; attributes other than `merge` are left alone.

    Raises:
        AttributesError: Naming the line that cannot be read: a rule that is dropped silently could merge wrongly.
    """
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise AttributesError(where, reason="it is not UTF-8") from error
    drivers: list[Driver] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        at = f"{where} line {number}"
        if words[0].startswith(('"', "!", "[attr]")):
            raise AttributesError(at, reason='a pattern cannot begin with ", ! or [attr]; write ? for a space')
        # As git has it: without a strategy, and with the attribute taken away, there is no way but asking.
        words = ["merge=manual" if word in ("merge", "-merge", "!merge") else word for word in words]
        wanted = [word.removeprefix("merge=") for word in words[1:] if word.startswith("merge=")]
        if len(words) < 2:
            raise AttributesError(at, reason="expected PATTERN merge=STRATEGY")
        drivers += [_driver(words[0], each, at) for each in wanted]
    if len(drivers) > _MAX_DRIVERS:
        raise AttributesError(where, reason=f"more than {_MAX_DRIVERS:,} rules")
    return tuple(drivers)


def _driver(pattern: str, strategy: str, where: str) -> Driver:
    try:
        path_regex(pattern)
    except ValueError as error:
        raise AttributesError(where, reason=str(error)) from error
    return Driver(pattern, check_strategy(strategy, where=where))


def _regex(pattern: str) -> str:
    try:
        return path_regex(pattern)
    except ValueError as error:
        raise AttributesError(repr(pattern), reason=str(error)) from error
