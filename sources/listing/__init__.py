"""Listing at scale: parallel, streaming, ordered and resumable."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sources.listing.crew import Guard
    from sources.listing.scanning import ScanProgress, scan
else:
    __getattr__ = lazily(
        __name__,
        {
            "crew": ("Guard",),
            "scanning": ("ScanProgress", "scan"),
        },
    )

__all__ = ["Guard", "ScanProgress", "scan"]
