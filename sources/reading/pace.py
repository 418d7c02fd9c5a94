"""How many requests an origin is asked for at a time: a state machine without clock, threads or sockets."""

from __future__ import annotations

from dataclasses import dataclass, field

_BURST_SECONDS = 1.0
_RETRIES_PER_SECOND = 10.0
_RETRY_BURST = 20.0
_RETRIES_PER_SUCCESS = 0.1
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an origin may be asked for by one process.

    Attributes:
        requests_per_second: None: as many as it answers.
        bytes_per_second: None: as many as it sends.
        concurrency: Requests at a time. 64 keep a 10 Gbit/s link busy with 1 MiB objects at 50 ms each.
    """

    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    concurrency: int = 64

    def __post_init__(self) -> None:
        for name in ("requests_per_second", "bytes_per_second", "concurrency"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"limit {name} is positive, found {value}")

    def tighter(self, other: Limits) -> Limits:
        """Return the smaller of each limit."""
        return Limits(
            _least(self.requests_per_second, other.requests_per_second),
            _least(self.bytes_per_second, other.bytes_per_second),
            min(self.concurrency, other.concurrency),
        )


@dataclass(slots=True)
class _Bucket:
    """Tokens that come back with time; it may go into debt, so that one request can be larger than the burst."""

    rate: float
    burst: float
    tokens: float
    at: float

    def ready_in(self, now: float) -> float:
        self.refill(now)
        return 0.0 if self.tokens > 0 else (1e-6 - self.tokens) / self.rate

    def refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = now


@dataclass(slots=True)
class Pace:
    """Additive increase, multiplicative decrease of the requests in flight, beside fixed rates.

    A throttled answer halves the window, once per window of requests, and pauses everybody if the store says for how
    long (each request that was refused waits for itself, see `RetryPolicy`); every answer widens the window by
    1/window, up to the limit (Chiu and Jain, 1989).

    Attributes:
        limits: The fixed ones.
        window: Requests that may be in flight now.
        in_flight: Requests that are.
        paused_until: No request begins before.
    """

    limits: Limits
    now: float
    window: float = field(init=False)
    in_flight: int = 0
    paused_until: float = 0.0
    _cut_at: float = field(init=False, default=-1.0)
    _requests: _Bucket | None = field(init=False)
    _bytes: _Bucket | None = field(init=False)
    _retries: _Bucket = field(init=False)

    def __post_init__(self) -> None:
        self.window = float(self.limits.concurrency)
        self._requests = _bucket(self.limits.requests_per_second, self.now)
        self._bytes = _bucket(self.limits.bytes_per_second, self.now)
        self._retries = _Bucket(_RETRIES_PER_SECOND, _RETRY_BURST, _RETRY_BURST, self.now)

    def begin(self, now: float, *, nbytes: int, retry: bool) -> float | None:
        """Admit a request and return None, or return the seconds after which to ask again (0: when one ends)."""
        if self.in_flight >= max(1, int(self.window)):
            return 0.0
        if not retry and now >= self.paused_until and self._requests is self._bytes is None:  # nearly every one
            self.in_flight += 1
            return None
        buckets = [(self._requests, 1.0), (self._bytes, float(nbytes)), (self._retries if retry else None, 1.0)]
        taken = [(bucket, amount) for bucket, amount in buckets if bucket is not None]
        wait = max([self.paused_until - now, *(bucket.ready_in(now) for bucket, _ in taken)])
        if wait > 0:
            return wait
        for bucket, amount in taken:
            bucket.tokens -= amount
        self.in_flight += 1
        return None

    def succeed(self) -> None:
        """Note that an admitted request was answered."""
        self.in_flight -= 1
        if self.window < self.limits.concurrency:
            self.window = min(float(self.limits.concurrency), self.window + 1.0 / self.window)
        self._retries.tokens = min(self._retries.burst, self._retries.tokens + _RETRIES_PER_SUCCESS)

    def fail(self) -> None:
        """Note that an admitted request failed, for whatever reason but throttling."""
        self.in_flight -= 1

    def throttle(self, now: float, *, begun: float, retry_after: float | None) -> None:
        """Note that a request admitted at `begun` was refused for being one too many."""
        self.in_flight -= 1
        if begun <= self._cut_at:  # one of the requests that the last cut answered already
            return
        self._cut_at = now
        self.window = max(1.0, self.window / 2)
        self.paused_until = now + min(_LONGEST_PAUSE, retry_after or 0.0)


def _bucket(rate: float | None, now: float) -> _Bucket | None:
    if rate is None:
        return None
    return _Bucket(rate, rate * _BURST_SECONDS, rate * _BURST_SECONDS, now)


def _least(one: float | None, other: float | None) -> float | None:
    both = [value for value in (one, other) if value is not None]
    return min(both) if both else None
