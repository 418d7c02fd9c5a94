"""Reading well from any store: ranges joined and split, retries, one budget per origin."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sources.reading.budget import Budget, shared_budget
    from sources.reading.pace import Limits, Pace
    from sources.reading.ranges import Fetch, Range, plan_fetches
    from sources.reading.retry import RetryPolicy
    from sources.reading.scanning import scan
    from sources.reading.steady import SteadyStore, SteadySwapStore
else:
    __getattr__ = lazily(
        __name__,
        {
            "budget": ("Budget", "shared_budget"),
            "pace": ("Limits", "Pace"),
            "ranges": ("Fetch", "Range", "plan_fetches"),
            "retry": ("RetryPolicy",),
            "scanning": ("scan",),
            "steady": ("SteadyStore", "SteadySwapStore"),
        },
    )

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
]
