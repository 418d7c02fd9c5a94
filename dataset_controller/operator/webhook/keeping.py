"""Keeps the webhooks' certificate: in a Secret for all replicas, in the configurations, and in what serves it."""

from __future__ import annotations

import base64
import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from dataset_controller.operator.webhook.certificates import Pair, is_due, make_pair, trusted

if TYPE_CHECKING:
    import ssl
    import threading
    from collections.abc import Callable, Mapping

    from dataset_controller.operator.api import ClusterApi

_log = logging.getLogger(__name__)
_LOOK_SECONDS, _RETRY_SECONDS = 60.0, 2.0
_CONFLICT = 409
_CERTIFICATE, _KEY, _BEFORE = "tls.crt", "tls.key", "before.crt"
_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
_KINDS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")


class CertificateKeeper:
    """Looks after the certificate of one installation; each of its replicas has one.

    Who finds it due makes another one, and writes it if nobody else did meanwhile (`resourceVersion`). The
    configurations trust the new one and the one before it, so that a replica may serve the old one until it looks.

    Args:
        api: With the right to get and update the Secret, and to get and patch the configurations.
        namespace: Of the Secret and the Service.
        name: Of the Secret, the Service and both configurations.
        context: Serves the certificate from when the first look is done.
        clock: Tells the time, in UTC.
    """

    def __init__(
        self,
        api: ClusterApi,
        namespace: str,
        name: str,
        context: ssl.SSLContext,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._secret = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        self._name = name
        self._names = (f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local")
        self._context = context
        self._clock = clock
        self._served: Pair | None = None

    def keep(self, stopping: threading.Event) -> None:
        """Look now and every minute, until told to stop; what fails is tried again soon."""
        seconds = 0.0
        while not stopping.wait(seconds):
            try:
                self.look()
            except ApiException as error:
                _log.warning(
                    "certificate of the webhooks: %s %s; apply the manifests again", error.status, error.reason
                )
                seconds = _RETRY_SECONDS
            except (HTTPError, OSError) as error:
                _log.warning("certificate of the webhooks: %s", error)
                seconds = _RETRY_SECONDS
            else:
                seconds = _LOOK_SECONDS

    def look(self) -> None:
        """See to it that the Secret, the configurations and the server have a certificate that is good.

        Raises:
            kubernetes.client.ApiException: If the server refuses it, or the Secret or a configuration is not there.
            urllib3.exceptions.HTTPError: If it cannot be asked.
        """
        found = self._api.ask("GET", self._secret)
        held = _plain(found.get("data") or {})
        pair = Pair(held.get(_CERTIFICATE, b""), held.get(_KEY, b""))
        before = held.get(_BEFORE, b"")
        if is_due(pair, self._names, self._clock()):
            pair, before = make_pair(self._names, self._clock()), pair.certificate
            if not self._write(found, pair, before):
                return self.look()  # another replica was faster
        self._trust(trusted([pair.certificate, before], self._clock()))
        if pair != self._served:
            self._serve(pair)
        return None

    def _write(self, secret: dict[str, Any], pair: Pair, before: bytes) -> bool:
        """Replace the Secret that was read, if it is still that one."""
        data = {_CERTIFICATE: pair.certificate, _KEY: pair.key, _BEFORE: before}
        encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
        try:
            self._api.ask("PUT", self._secret, {**secret, "data": encoded})
        except ApiException as error:
            if error.status == _CONFLICT:
                return False
            raise
        _log.info("made a certificate for %s", self._names[0])
        return True

    def _trust(self, bundle: bytes) -> None:
        """Have the API server trust certificates."""
        encoded = base64.b64encode(bundle).decode()
        for kind in _KINDS:
            path = f"{_CONFIGURATIONS}/{kind}/{self._name}"
            found = self._api.ask("GET", path)
            clients = [each["clientConfig"] for each in found.get("webhooks") or []]
            if all(client.get("caBundle") == encoded for client in clients):
                continue
            for client in clients:
                client["caBundle"] = encoded
            # with the resourceVersion that was read: what somebody changed meanwhile is not undone
            self._api.ask("PUT", path, found)
            _log.info("trusted by %s/%s", kind, self._name)

    def _serve(self, pair: Pair) -> None:
        with tempfile.TemporaryDirectory() as directory:  # ssl reads files only
            chain = Path(directory) / "chain.pem"
            chain.touch(mode=0o600)
            chain.write_bytes(pair.key + pair.certificate)
            self._context.load_cert_chain(chain)  # connections from now on have it
        self._served = pair


def _plain(data: Mapping[str, str]) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(value, validate=True) for name, value in data.items()}
    except ValueError:
        return {}
