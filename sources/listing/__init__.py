"""Listing at scale: parallel, streaming, ordered and resumable."""

from sources.listing.crew import Guard
from sources.listing.scanning import ScanProgress, scan

__all__ = ["Guard", "ScanProgress", "scan"]
