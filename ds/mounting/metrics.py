"""What a mount counts, in Prometheus' text format. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_GAUGES = frozenset(
    {"open_handles", "waiting", "passthrough_files", "longest_wait_seconds", "cache_is_filled"}
    | {"evicted_while_open_files", "evicted_while_open_bytes"}
)
_BOUNDS, _WAITS, _WAITED = "waits_bounds_ms", "waits", "waited_seconds"


def prometheus_text(status: Mapping[str, Any]) -> str:
    """Return a mount's status as metrics.

    Args:
        status: As `MountServer.status` returns it.
    """
    point = f'mountpoint="{_escaped(str(status.get("mountpoint", "")))}"'
    lines: list[str] = []
    for name, kind, samples in _families(status):
        lines.append(f"# TYPE forebay_mount_{name} {kind}")
        for suffix, label, value in samples:
            labels = f"{point},{label}" if label else point
            lines.append(f"forebay_mount_{name}{suffix}{{{labels}}} {value:.15g}")
    return "\n".join(lines) + "\n"


_Family = tuple[str, str, list[tuple[str, str, float]]]


def _families(status: Mapping[str, Any]) -> Iterator[_Family]:
    """Yield name, kind and samples: what the name ends with, a label, a value."""
    yield "info", "gauge", [("", f'commit="{status.get("commit", "")}"', 1.0)]
    for name in ("files", "bytes", "passthrough", "epochs", "waiting", "names_not_shown"):
        if name in status:
            yield name, "gauge", [("", "", float(status[name]))]
    if "errors" in status:
        yield "errors_total", "counter", [("", "", float(status["errors"]))]
    operations = sorted(status.get("operations", {}).items())
    for name, field in (("requests_total", "requests"), ("request_seconds_total", "seconds")):
        yield name, "counter", [("", f'operation="{each}"', float(found[field])) for each, found in operations]
    yield from _reading(status.get("reading", {}))


def _reading(found: Mapping[str, Any]) -> Iterator[_Family]:
    for name, value in found.items():
        if isinstance(value, int | float) and name != _WAITED:
            is_gauge = name in _GAUGES
            kind, ending = ("gauge", "") if is_gauge else ("counter", "_total")
            yield f"reading_{name}{ending}", kind, [("", "", float(value))]
    if _WAITS in found and _BOUNDS in found:
        yield "read_wait_seconds", "histogram", list(_histogram(found))


def _histogram(found: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    bounds = [f"{bound / 1000:g}" for bound in found[_BOUNDS]] + ["+Inf"]
    total = 0
    for bound, count in zip(bounds, found[_WAITS], strict=True):
        total += count
        yield "_bucket", f'le="{bound}"', float(total)
    yield "_sum", "", float(found.get(_WAITED, 0.0))
    yield "_count", "", float(total)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
