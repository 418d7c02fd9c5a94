"""The kubelet's side of a driver's sockets: calls over gRPC, as a real kubelet makes them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ds.csi.messages import message_class

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 60.0
READ_ONLY_MANY = 3


class Kubelet:
    """Calls a driver."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def call(self, method: str, request: Any, answer: str) -> Any:
        """Call `SERVICE/METHOD`."""
        name = method.rpartition("/")[0].rpartition(".")[0]
        asked = self._channel.unary_unary(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_class(f"{name}.{answer}").FromString,
        )
        return asked(request, timeout=_SECONDS)

    def publish(self, request: Any) -> None:
        self.call("csi.v1.Node/NodePublishVolume", request, "NodePublishVolumeResponse")

    def unpublish(self, target: str) -> None:
        request = message_class("csi.v1.NodeUnpublishVolumeRequest")(volume_id="v", target_path=target)
        self.call("csi.v1.Node/NodeUnpublishVolume", request, "NodeUnpublishVolumeResponse")


@contextmanager
def calling(socket: Path) -> Iterator[Kubelet]:
    """Connect to one of a driver's sockets."""
    import grpc

    with grpc.insecure_channel(f"unix://{socket}") as channel:
        yield Kubelet(channel)


def publishing(target: str, *, secrets: dict[str, str] | None = None, mode: int = 1, **attributes: str) -> Any:
    """Return the request for an inline volume of a pod of namespace `ml`; with a mode, of a PersistentVolume."""
    context = {"csi.storage.k8s.io/pod.namespace": "ml", "csi.storage.k8s.io/pod.name": "train", **attributes}
    context["csi.storage.k8s.io/ephemeral"] = "true" if mode == 1 else "false"
    return message_class("csi.v1.NodePublishVolumeRequest")(
        volume_id="csi-1",
        target_path=target,
        volume_capability={"access_mode": {"mode": mode}},
        volume_context=context,
        secrets=secrets or {},
    )
