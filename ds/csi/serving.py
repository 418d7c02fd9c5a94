"""The driver's two sockets: CSI for the kubelet's volumes, and the one by which the kubelet finds it."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds.csi.asking import DRIVER, checked_target, wish_of
from ds.csi.errors import VolumeError
from ds.csi.messages import message_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ds.csi.volumes import Volumes

_log = logging.getLogger(__name__)
_THREADS = 32
"""As many mounts may wait for slow stores at a time."""
_END_SECONDS = 10.0
_REGISTRATION = "pluginregistration.Registration"


@dataclass(frozen=True)
class Sockets:
    """Where the kubelet looks for the driver.

    Attributes:
        csi: For volumes.
        registration: In the directory that the kubelet watches.
    """

    csi: Path
    registration: Path

    @classmethod
    def below(cls, kubelet_dir: str) -> Sockets:
        """Return them as a kubelet has them."""
        root = Path(kubelet_dir)
        return cls(root / "plugins" / DRIVER / "csi.sock", root / "plugins_registry" / f"{DRIVER}-reg.sock")


class Driver:
    """Answers the calls of Identity, Node and Registration; what is left out, gRPC answers as UNIMPLEMENTED.

    Args:
        volumes: Of this node.
        sockets: Where it is found.
    """

    def __init__(self, volumes: Volumes, sockets: Sockets) -> None:
        self._volumes = volumes
        self._sockets = sockets
        self.is_registered = threading.Event()

    @property
    def volume_services(self) -> dict[str, dict[str, Callable[[Any], dict[str, Any]]]]:
        """The methods of the services of CSI: a request in, the fields of its answer out."""
        return {
            "csi.v1.Identity": {
                "GetPluginInfo": lambda _: {"name": DRIVER, "vendor_version": version("forebay")},
                "GetPluginCapabilities": lambda _: {},  # no controller service
                "Probe": lambda _: {},
            },
            "csi.v1.Node": {
                "NodeGetCapabilities": lambda _: {},  # no stage, no statistics
                "NodeGetInfo": lambda _: {"node_id": self._volumes.node.name},
                "NodePublishVolume": self._publish,
                "NodeUnpublishVolume": self._unpublish,
            },
        }

    def plugin_info(self, _: Any) -> dict[str, Any]:
        """Say what the kubelet finds here, and where."""
        endpoint = str(self._sockets.csi)
        return {"type": "CSIPlugin", "name": DRIVER, "endpoint": endpoint, "supported_versions": ["1.0.0"]}

    def registered(self, request: Any) -> dict[str, Any]:
        """Hear whether the kubelet takes the driver."""
        if request.plugin_registered:
            _log.info("registered with the kubelet driver=%s", DRIVER)
            self.is_registered.set()
        else:
            _log.error("the kubelet refuses the driver: %s", request.error)
        return {}

    def _publish(self, request: Any) -> dict[str, Any]:
        self._volumes.publish(wish_of(request, kubelet_dir=self._volumes.node.kubelet_dir))
        return {}

    def _unpublish(self, request: Any) -> dict[str, Any]:
        self._volumes.unpublish(checked_target(request.target_path, kubelet_dir=self._volumes.node.kubelet_dir))
        return {}


@contextmanager
def serving(volumes: Volumes, sockets: Sockets) -> Iterator[Driver]:
    """Serve a node's volumes, and let its kubelet find them, until the block ends. Mounts stay."""
    volumes.forget_earlier()
    driver = Driver(volumes, sockets)
    with (
        _served(sockets.csi, driver.volume_services),
        _served(
            sockets.registration,
            {_REGISTRATION: {"GetInfo": driver.plugin_info, "NotifyRegistrationStatus": driver.registered}},
        ),
    ):
        yield driver


@contextmanager
def _served(socket: Path, services: dict[str, dict[str, Callable[[Any], dict[str, Any]]]]) -> Iterator[None]:
    import grpc

    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileNotFoundError):  # an earlier driver's
        socket.unlink()
    server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="csi"))
    handlers = [
        grpc.method_handlers_generic_handler(
            service, {name: _handler(service, name, method) for name, method in methods.items()}
        )
        for service, methods in services.items()
    ]
    server.add_generic_rpc_handlers(handlers)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    os.chmod(socket, 0o600)  # root's, as the kubelet is
    try:
        yield
    finally:
        server.stop(_END_SECONDS).wait()
        with suppress(FileNotFoundError):
            socket.unlink()


_MESSAGES = {
    "GetInfo": ("InfoRequest", "PluginInfo"),
    "NotifyRegistrationStatus": ("RegistrationStatus", "RegistrationStatusResponse"),
}
"""Requests and answers that are not named as their method is."""


def _handler(service: str, name: str, method: Callable[[Any], dict[str, Any]]) -> Any:
    import grpc

    package = service.rpartition(".")[0]
    asked, told = _MESSAGES.get(name, (f"{name}Request", f"{name}Response"))
    answer_class = message_class(f"{package}.{told}")

    def answer(request: Any, context: Any) -> Any:
        try:
            return answer_class(**method(request))
        except VolumeError as error:  # a request is never logged: it carries secrets
            _log.warning("%s: %s: %s", name, error.status, error)
            context.abort(grpc.StatusCode[error.status], str(error))

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=message_class(f"{package}.{asked}").FromString,
        response_serializer=answer_class.SerializeToString,
    )
