from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("cryptography")

from dataset_controller.operator.webhook.certificates import LIFETIME, Pair, is_due, make_pair, trusted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("hook.here.svc", "hook.here.svc.cluster.local")


def test_a_certificate_is_due_in_the_last_third_of_its_life() -> None:
    pair = make_pair(NAMES, NOW)
    assert not is_due(pair, NAMES, NOW)
    assert not is_due(pair, NAMES[:1], NOW + LIFETIME * 0.66)
    assert is_due(pair, NAMES, NOW + LIFETIME * 0.67)


@pytest.mark.parametrize("pair", [Pair(b"", b""), Pair(b"junk", b"junk")])
def test_nothing_and_junk_are_due(pair: Pair) -> None:
    assert is_due(pair, NAMES, NOW)


def test_another_name_and_another_key_are_due() -> None:
    pair, other = make_pair(NAMES, NOW), make_pair(NAMES, NOW)
    assert is_due(pair, ("hook.there.svc",), NOW)
    assert is_due(Pair(pair.certificate, other.key), NAMES, NOW)


def test_what_has_ended_is_trusted_no_more_and_nothing_twice() -> None:
    old, new = make_pair(NAMES, NOW), make_pair(NAMES, NOW + timedelta(days=300))
    both = [new.certificate, old.certificate, old.certificate, b"", b"junk"]
    assert trusted(both, NOW + timedelta(days=301)) == new.certificate + old.certificate
    assert trusted(both, NOW + LIFETIME) == new.certificate


@contextmanager
def serving(pair: Pair, directory: Path) -> Iterator[int]:
    chain = directory / "chain.pem"
    chain.write_bytes(pair.key + pair.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with server.accept()[0] as taken:
                taken.settimeout(10)
                try:
                    context.wrap_socket(taken, server_side=True).close()
                except (ssl.SSLError, OSError):
                    return  # the client says why

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(("name", "is_trusted"), [(NAMES[0], True), (NAMES[1], True), ("other.here.svc", False)])
def test_who_trusts_the_bundle_believes_the_server_by_its_names_only(
    name: str, is_trusted: bool, tmp_path: Path
) -> None:
    pair = make_pair(NAMES, datetime.now(UTC))
    context = ssl.create_default_context(cadata=trusted([pair.certificate], datetime.now(UTC)).decode())
    with serving(pair, tmp_path) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        if is_trusted:
            context.wrap_socket(plain, server_hostname=name).close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                context.wrap_socket(plain, server_hostname=name)
