"""Asking workers: blocks of one object from one after another, many small ranges from one at once."""

from __future__ import annotations

import logging
import random
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError, ProtocolError
from cache_runtime.peers.exchange import wait_for_any
from cache_runtime.peers.questions import ERROR_BYTES, refusal_of
from cache_runtime.peers.routing import Ask
from cache_runtime.protocol import (
    BATCH_HEADER,
    BATCH_PATH,
    BLOCKS_HEADER,
    SOURCE_HEADER,
    ErrorKind,
    Source,
    encode_batch,
    format_range,
    object_target,
    parse_sums,
    split_batch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.downloads import Download
    from cache_runtime.peers.exchange import Exchange
    from cache_runtime.peers.placement import Member
    from cache_runtime.peers.routing import Route
    from cache_runtime.protocol import BatchAnswer
    from cache_runtime.stats import ReadStats
    from cache_runtime.store.shares import Share
    from sources import Location

_log = logging.getLogger(__name__)
_WELL = frozenset({400, 403, 404, 409, 413, 414, 416, 431, 502, 504})
"""The worker is well; something is wrong with the request, the object or its origin: the origin tells the caller."""
_BUSY = 429
_MAX_WAIT_SECONDS = 2.0


class Asker:
    """Asks the workers of a route, each in its turn, and keeps count of how they did.

    Args:
        peers: The cluster.
        stats: Counted in.
    """

    def __init__(self, peers: Peers, stats: ReadStats) -> None:
        self._peers = peers
        self._stats = stats

    def bring(self, download: Download, route: Route, share: Share) -> bool:
        """Get blocks from the workers of a route; False if not all of them could be had, never an error.

        What was proven until then stays in the download.
        """
        for number, ask in enumerate(route.asks):
            if not self._peers.may_ask(ask.member):
                self._stats.peers_skipped += 1
                continue
            hedge = next((later.member for later in route.asks[number + 1 :] if later.member != ask.member), None)
            began = time.monotonic()
            try:
                had = self._bring_patiently(ask, download, share, hedge)
            except PeerError as error:
                failed = hedge if hedge is not None and error.member == hedge.name else ask.member
                self._count_failure(failed, error, began)
                if error.status in _WELL:
                    break
                continue
            if not ask.fill:
                self._peers.probing.told(share.name, hits=had, misses=not had)
            if had:
                self._stats.reads_peer += 1
                self._stats.bytes_peer += download.length
                return True
        self._stats.corrupt_blocks += not download.prove()
        download.keep_proven()
        return False

    def ask_ranges(self, ask: Ask, items: Sequence[Location], share: Share) -> list[BatchAnswer | None]:
        """Ask one worker for many ranges, within the limits of one batch.

        Returns:
            For each item its answer, or None where none came; never an error.
        """
        answers: list[BatchAnswer | None] = []
        if not self._peers.may_ask(ask.member):
            self._stats.peers_skipped += 1
            return [None] * len(items)
        began = time.monotonic()
        try:
            body = self._post_batch(ask, items, share)
            answers.extend(split_batch(body, items))
        except PeerError as error:
            self._count_failure(ask.member, error, began)
        except ProtocolError as error:  # what came before is good
            self._count_failure(ask.member, PeerError(ask.member.name, str(error)), began)
        else:
            self._peers.health.answered(ask.member.name)
        good = [answer for answer in answers if answer is not None and answer.error is None]
        if not ask.fill:
            self._peers.probing.told(share.name, hits=len(good), misses=len(answers) - len(good))
        self._stats.reads_peer += len(good)
        self._stats.bytes_peer += sum(len(answer.data) for answer in good)
        return answers + [None] * (len(items) - len(answers))

    def _post_batch(self, ask: Ask, items: Sequence[Location], share: Share) -> bytearray:
        limit = sum(item.length + BATCH_HEADER.size + ERROR_BYTES for item in items)
        body = encode_batch(items, fill=ask.fill, share=share)
        headers = {"Content-Type": "application/json"}
        again = 2
        while True:
            try:
                with self._send(ask, "POST", BATCH_PATH, headers=headers, body=body) as exchange:
                    self._begin(exchange)
                    if exchange.status != 200:
                        raise refusal_of(exchange)
                    exchange.is_ready = True  # it begins to answer when it has all of it
                    return exchange.read_rest(limit)
            except PeerError as error:
                again -= 1
                if again < 0 or not (error.is_stale or error.status == _BUSY):
                    raise
                _wait_if_busy(error)

    def _bring_patiently(self, ask: Ask, download: Download, share: Share, hedge: Member | None) -> bool:
        """Do `_bring_from`, and wait for a busy worker a little: to ask elsewhere is a second fetch from the origin."""
        for _ in range(2):
            try:
                return self._bring_from(ask, download, share, hedge)
            except PeerError as error:
                if error.status != _BUSY:
                    raise
                _wait_if_busy(error)
        return self._bring_from(ask, download, share, hedge)

    def _bring_from(self, ask: Ask, download: Download, share: Share, hedge: Member | None) -> bool:
        """Complete a download from one worker; False if it does not have the blocks.

        Raises:
            PeerError: If it failed; what came stays in the download.
        """
        again = True
        while not download.is_complete:
            before = download.received
            try:
                if not self._receive(ask, download, share, hedge):
                    return False
            except PeerError as error:
                moved = download.received > before or error.is_stale
                if error.status or error.is_slow or not again or not moved:
                    raise
                # cut off underway: go on at the byte
                again = False
                self._stats.resumed += download.received > before
                continue
            self._prove(ask, download)
        return True

    def _receive(self, ask: Ask, download: Download, share: Share, hedge: Member | None) -> bool:
        offset, length = download.next_range()
        with self._answering(ask, download, share, hedge) as exchange:
            if exchange.status != 206:
                refusal = refusal_of(exchange)
                if refusal.failure == ErrorKind.NOT_CACHED:
                    self._peers.health.answered(exchange.member.name)
                    return False
                raise refusal
            if exchange.length != length:
                raise PeerError(exchange.member.name, f"sent {exchange.length} bytes at {offset}, asked for {length}")
            _note_sums(exchange, download)
            exchange.is_ready = exchange.header(SOURCE_HEADER) == Source.LOCAL
            stop = download.received + length
            while download.received < stop:
                download.received += exchange.read_into(download.data[download.received : stop])
            self._peers.health.answered(exchange.member.name)  # not before: a machine may be well, and its network not
        return True

    def _prove(self, ask: Ask, download: Download) -> None:
        """Check what came; ask for checksums that the worker did not know yet when it began to send."""
        if download.lacks_sums():
            headers = {"Range": format_range(download.offset, download.length)}
            target = object_target(download.ref, fill=False)
            with self._send(ask._replace(fill=False), "HEAD", target, headers=headers) as exchange:
                exchange.begin()
                if exchange.status == 206:
                    _note_sums(exchange, download)
        before = download.proven
        if not download.prove():
            self._stats.corrupt_blocks += 1
            raise PeerError(ask.member.name, f"bytes of {download.ref.uri} failed their check")
        if not download.is_complete:
            if download.single and download.proven == before:
                raise PeerError(ask.member.name, "sent bytes without their checksum")
            download.single = True

    @contextmanager
    def _answering(self, ask: Ask, download: Download, share: Share, hedge: Member | None) -> Iterator[Exchange]:
        """Hold an answer that has begun: the worker's, or that of a second one which was faster."""
        headers = {"Range": format_range(*download.next_range())}
        with ExitStack() as stack:
            target = object_target(download.ref, fill=ask.fill, share=share)
            first = stack.enter_context(self._send(ask, "GET", target, headers=headers))
            began = time.monotonic()
            chosen = None
            if hedge is not None and not wait_for_any([first], self._peers.hedging.delay_seconds):
                chosen = self._hedge(stack, first, hedge, object_target(download.ref, fill=False), headers)
            if chosen is None:
                chosen = first
                self._begin(first)
                self._peers.hedging.answered(time.monotonic() - began)
            yield chosen

    def _hedge(
        self, stack: ExitStack, first: Exchange, hedge: Member, target: str, headers: dict[str, str]
    ) -> Exchange | None:
        """Ask a second worker for what it has; return its answer if it is a good one before the first one begins.

        It is not asked to fill: the first one is doing so, and each byte leaves the origin once.
        """
        if self._peers.is_left_alone(hedge) or not self._peers.hedging.take():
            return None
        self._stats.hedges += 1
        began = time.monotonic()
        try:
            second = stack.enter_context(self._send(Ask(hedge, False), "GET", target, headers=headers))
            ready = wait_for_any([first, second], self._peers.connections.timeouts.probe_seconds)
            if first in ready or second not in ready:
                return None
            second.begin()
            if second.status == 206:
                return second
            second.read_error()
        except PeerError as error:
            self._count_failure(hedge, error, began)
        return None

    def _send(self, ask: Ask, method: str, target: str, *, headers: dict[str, str], body: bytes = b"") -> Exchange:
        # whoever is asked by us to fill may ask others in turn: that must take less than we wait for it
        seconds = None if ask.fill else self._peers.connections.timeouts.probe_seconds
        return self._peers.connections.request(
            ask.member, method, target, headers=headers, body=body, idle_seconds=seconds
        )

    def _begin(self, exchange: Exchange) -> None:
        """Wait for an answer for as long as its worker says that it lives.

        Raises:
            PeerError: If it does not, or its patience is over.
        """
        timeouts = self._peers.connections.timeouts
        end = time.monotonic() + timeouts.idle_seconds
        while time.monotonic() < end and not wait_for_any([exchange], timeouts.silent_seconds):
            if not self._peers.is_alive(exchange.member):
                raise PeerError(exchange.member.name, "does not answer, not even that it lives")
        exchange.begin()

    def _count_failure(self, member: Member, error: PeerError, began: float) -> None:
        if error.status in _WELL:
            self._peers.health.answered(member.name)
            _log.info("worker cannot get it: %s", error)
            return
        self._stats.peer_failures += 1
        self._peers.failed(member, error, began=began)


def _note_sums(exchange: Exchange, download: Download) -> None:
    try:
        download.note(parse_sums(exchange.header(BLOCKS_HEADER)))
    except ProtocolError as error:
        raise PeerError(exchange.member.name, str(error)) from error


def _wait_if_busy(error: PeerError) -> None:
    if error.status == _BUSY:
        time.sleep(min(_MAX_WAIT_SECONDS, error.retry_seconds or 0.1) * (0.5 + random.random() / 2))
