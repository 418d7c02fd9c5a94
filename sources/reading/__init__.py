"""Reading well from any store: ranges joined and split, retries, one budget per origin."""

from sources.reading.budget import Budget, shared_budget
from sources.reading.pace import Limits, Pace
from sources.reading.ranges import Fetch, Range, plan_fetches
from sources.reading.retry import RetryPolicy
from sources.reading.scanning import scan
from sources.reading.steady import SteadyStore, SteadySwapStore, steady

__all__ = [
    "Budget",
    "Fetch",
    "Limits",
    "Pace",
    "Range",
    "RetryPolicy",
    "SteadyStore",
    "SteadySwapStore",
    "plan_fetches",
    "scan",
    "shared_budget",
    "steady",
]
