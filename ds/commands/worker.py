"""Command that serves this node's cache to others: worker."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cache_runtime.worker.config import Tls, WorkerConfig
from dataset_controller import OpenWorker, open_worker
from ds.commands.options import RuntimeOption
from ds.durations import parse_duration
from ds.errors import UsageError
from ds.runtimes import Runtime, only_runtime
from ds.settings import Settings, current_settings
from ds.working import Address, find_own_member, log_to_stderr

if TYPE_CHECKING:
    from cache_runtime.worker.node import Node

_log = logging.getLogger(__name__)
_FOLLOW_SECONDS = 1.0
"""How often the manifests of a cluster are looked at: some calls of stat."""


class LogFormat(StrEnum):
    """How a worker logs."""

    TEXT = "text"
    JSON = "json"


def worker_command(
    runtime: RuntimeOption = None,
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT; anything but loopback needs a token. :PORT is every address.")
    ] = "127.0.0.1:7070",
    name: Annotated[
        str | None,
        typer.Option("--name", help="Among the members; default: $FOREBAY_WORKER_NAME, or the host's name."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Where others reach it; default: $FOREBAY_WORKER_URL, or as the members say."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Accepted tokens, one a line, the first one shown to other workers."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, PEM.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option("--client-ca", help="Callers must show a certificate that this one signed.")
    ] = None,
    drain_seconds: Annotated[
        str, typer.Option("--drain-seconds", help="From SIGTERM to the end, such as 30 or 2m.")
    ] = "30",
    log: Annotated[
        LogFormat, typer.Option("--log", help="Lines on stderr, for people or for machines.")
    ] = LogFormat.TEXT,
) -> None:
    """Serve this node's cache to the other nodes, until SIGTERM or Ctrl-C.

    Only the sources and repositories of the datasets that use the cache runtime can be read through it; after
    `ds apply` of another one, start it again. With $FOREBAY_MANIFESTS, in a cluster, it follows the files there.
    Leaving, it hands over what was read lately to the next workers.

    Tokens come from --token-file, else $FOREBAY_WORKER_TOKEN_FILE and $FOREBAY_WORKER_TOKEN, else the file that the
    runtime's spec.workers.tokenFile names.

    \b
    Examples:
      ds worker
      ds worker --runtime nvme --listen 0.0.0.0:7070 --token-file /etc/forebay/token --log json
      ds worker --listen :7070 --tls-cert node.pem --tls-key node.key --client-ca ca.pem
    """
    settings = _overridden(current_settings(), token_file, name, url)
    chosen = only_runtime(runtime, settings)
    address, seconds = Address.parse(listen), parse_duration(drain_seconds, what="--drain-seconds")
    tls = _tls(tls_cert, tls_key, client_ca)
    log_to_stderr(as_json=log == LogFormat.JSON)
    follows = settings.manifests is not None
    opened = open_worker(settings.catalog(), chosen.resource, settings.access, follows=follows)
    config = _config(opened, chosen, settings, address)
    _serve(replace(config, tls=tls, drain_seconds=seconds), opened, follows=follows)


def _config(opened: OpenWorker, runtime: Runtime, settings: Settings, address: Address) -> WorkerConfig:
    name, url = _identity(opened, settings, address)
    return WorkerConfig(
        name=name,
        directory=Path(opened.store.directory),
        host=address.host,
        port=address.port,
        url=url,
        tokens=(settings.worker_token,) if settings.worker_token else (),
        token_file=_token_file(runtime, settings),
        shares=opened.shares,
    )


def _serve(config: WorkerConfig, opened: OpenWorker, *, follows: bool) -> None:
    # loading the server takes longer than most commands: only this one does
    from cache_runtime.worker.loads import LoadTable
    from cache_runtime.worker.serving import serve

    if not opened.datasets:
        _log.warning("no dataset of this machine uses this cache runtime: nothing can be read through this worker yet")
    _log.info(
        "worker starts name=%s directory=%s datasets=%s", config.name, config.directory, ",".join(opened.datasets)
    )
    try:
        loads = LoadTable(opened.client)
        on_node = partial(_follow, opened) if follows else None
        serve(
            config,
            client=opened.client,
            origins=opened.origins,
            loads=loads,
            neighbours=opened.peers,
            on_node=on_node,
        )
    finally:
        opened.client.close()
    _log.info("worker ended name=%s", config.name)


def _follow(opened: OpenWorker, node: Node) -> None:
    """Let the worker serve the datasets of a cluster as they come, change and go, from a thread of its own."""

    def look() -> None:
        while True:
            time.sleep(_FOLLOW_SECONDS)
            if opened.follow():
                shares = {share.name: share for share in opened.shares}
                node.shares.update(shares)
                for name in set(node.shares) - set(shares):
                    node.shares.pop(name, None)
                _log.info("worker serves name=%s datasets=%s", node.config.name, ",".join(opened.datasets))

    threading.Thread(target=look, name="follow-manifests", daemon=True).start()


def _overridden(settings: Settings, token_file: Path | None, name: str | None, url: str | None) -> Settings:
    settings = replace(settings, worker_name=name or settings.worker_name, worker_url=url or settings.worker_url)
    if token_file is None:
        return settings
    return replace(settings, worker_token_file=str(token_file.absolute()), worker_token=None)


def _token_file(runtime: Runtime, settings: Settings) -> Path | None:
    workers = runtime.resource.spec.workers
    declared = workers.token_file if workers is not None and settings.worker_token is None else None
    found = settings.worker_token_file or declared
    return Path(found) if found else None


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    return Tls(certificate, key, client_ca)


def _identity(opened: OpenWorker, settings: Settings, address: Address) -> tuple[str, str | None]:
    """Return what the worker is called and where it is reached, as far as the members say."""
    name, url = settings.worker_name, settings.worker_url
    if opened.peers is None:
        return name, url
    members = opened.peers.members()
    member = find_own_member(members, name, address.port)
    if member is not None:
        return member.name, url or member.url
    if not any(known.url == url for known in members):
        known = ", ".join(each.name for each in members) or "none"
        _log.warning("not among the members, so nobody asks it: name it with --name worker=%s known=%s", name, known)
    return name, url
