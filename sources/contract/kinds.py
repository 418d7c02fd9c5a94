"""The three kinds of stores, by what they must be able to do."""

from __future__ import annotations

from sources.contract.listing import ListingClaims
from sources.contract.reading import ReadingClaims
from sources.contract.secrecy import SecrecyClaims
from sources.contract.swapping import SwappingClaims
from sources.contract.travelling import TravellingClaims
from sources.contract.writing import WritingClaims


class ReadOnlyContract(ListingClaims, ReadingClaims, TravellingClaims, SecrecyClaims):
    """For a store that cannot write: also give fixtures `put_behind` and `delete_behind`."""


class StoreContract(ReadOnlyContract, WritingClaims):
    """For a store that a dataset may be read from and written to."""


class SwapContract(StoreContract, SwappingClaims):
    """For a store that may hold a repository."""
