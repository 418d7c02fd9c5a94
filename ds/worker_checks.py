"""Checks of the workers of a cache: reachable, the same token, clock, version and name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cache_runtime.errors import CacheError
from cache_runtime.protocol import OPENAPI_PATH
from cache_runtime.worker.openapi import describe
from dataset_controller.worker_calls import ask_worker, sample_workers
from ds.findings import failure, ok, warning
from ds.output import human_bytes, plural
from ds.watching import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.peers import Member, Peers
    from dataset_controller.worker_calls import WorkerSample
    from ds.findings import Finding
    from ds.runtimes import Runtime

_SKEW_SECONDS = 30.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def check_workers(runtime: Runtime) -> Iterator[Finding]:
    """Check the token of this node, its own worker, and each worker of the cluster."""
    try:
        peers = runtime.watched
    except CacheError as error:
        remedy = "mend spec.workers of the runtime, or the file it names"
        yield failure("workers", runtime.name, str(error), remedy)
        return
    if peers is None:
        yield ok("workers", runtime.name, "it has none: this node caches for itself")
        return
    yield from _check_token(runtime, peers)
    members = peers.members()
    if not members:
        yield failure("workers", runtime.name, "nobody is named", "see spec.workers: the DNS name must have addresses")
    yield from _check_own(runtime, peers)
    for sample in sample_workers(peers):
        member = members.named(sample.name)
        if member is not None:
            yield from _check_worker(peers, member, sample)


def _check_token(runtime: Runtime, peers: Peers) -> Iterator[Finding]:
    path = peers.security.token_file
    if path is not None:
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
            with open(path, encoding="ascii") as file:
                empty = not file.readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            yield failure("token", path, f"cannot be read: {error}", "create it: its first line is shown to workers")
            return
        if empty:
            yield failure("token", path, "its first line is empty", "write the workers' token there")
        elif mode & stat.S_IROTH:
            yield warning("token", path, f"mode {mode:o}: everybody on this machine can read it", f"chmod o-r {path}")
        else:
            yield ok("token", path, f"mode {mode:o}")
    elif peers.security.token is None and any(not _is_loopback(member) for member in peers.members()):
        remedy = "set FOREBAY_WORKER_TOKEN_FILE, or spec.workers.tokenFile"
        yield failure("token", runtime.name, "there is none, and workers off this machine ask for one", remedy)


def _is_loopback(member: Member) -> bool:
    return urlsplit(member.url).hostname in _LOOPBACK


def _check_own(runtime: Runtime, peers: Peers) -> Iterator[Finding]:
    worker = runtime.worker
    if worker is None:
        yield ok("own worker", runtime.name, "none serves this node's cache: it takes from others, and gives nothing")
    elif peers.own_name() is None:
        known = ", ".join(member.name for member in peers.members()) or "none"
        remedy = f"start it with --name as the cluster knows it: {known}"
        yield warning("own worker", runtime.name, f"{worker.name} at {worker.url} is not among the members", remedy)
    else:
        yield ok("own worker", runtime.name, f"{worker.name} at {worker.url}, process {worker.pid}")


def _check_worker(peers: Peers, member: Member, sample: WorkerSample) -> Iterator[Finding]:
    subject = f"{member.name} {member.url}"
    if sample.stats is None:
        yield _explain_silence(subject, sample)
        return
    state = state_of(sample)
    if state == "off":
        reason = sample.stats["store"]["off_reason"]
        yield failure("worker", subject, f"its cache is off: {reason}", "run ds cache doctor there")
    elif state == "leaving":
        yield warning("worker", subject, "is leaving", "nothing, if that is meant")
    else:
        store = sample.stats.get("store", {})
        yield ok("worker", subject, f"ready, {human_bytes(store.get('used_bytes', 0))} cached")
    told = sample.stats.get("name")
    if told not in (None, member.name) and urlsplit(member.url).netloc != member.name:  # DNS gives addresses for names
        remedy = "give both one name, or readers on that node take it for another one"
        yield warning("worker", subject, f"calls itself {told}", remedy)
    skew = sample.skew_seconds or 0.0
    if abs(skew) > _SKEW_SECONDS:
        remedy = "set both clocks (chronyc, timedatectl)"
        ahead = "ahead of" if skew > 0 else "behind"
        yield warning("clock", subject, f"is {plural(round(abs(skew)), 'second')} {ahead} this machine", remedy)
    yield from _check_version(peers, member, subject)


def _explain_silence(subject: str, sample: WorkerSample) -> Finding:
    reason = sample.error or "does not answer"
    if sample.status in (401, 403):
        remedy = "this node and the worker have different tokens: compare the files that both name"
        return failure("token", subject, reason, remedy)
    remedy = "is it running (ds worker), is the port open from here, does the certificate fit?"
    return failure("worker", subject, reason, remedy)


def _check_version(peers: Peers, member: Member, subject: str) -> Iterator[Finding]:
    ours = describe()["info"]["version"]
    try:
        theirs = ask_worker(peers, member, OPENAPI_PATH).document.get("info", {}).get("version")
    except CacheError as error:
        yield warning("version", subject, str(error), "run ds cache doctor again")
        return
    if theirs != ours:
        remedy = "run one version of Forebay everywhere"
        yield failure("version", subject, f"speaks version {theirs} of the protocol, this node {ours}", remedy)
