"""The messages that the kubelet and a driver of read-only volumes exchange, with their numbers on the wire.

Of a message, the fields that we read or write; others are skipped when they come, as protobuf has it. The numbers are
those of `csi.proto` (v1) and of the kubelet's `pluginregistration/v1/api.proto`; they never change.
"""

from __future__ import annotations

from functools import cache
from typing import Any

_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "csi.v1.GetPluginInfoRequest": {},
    "csi.v1.GetPluginInfoResponse": {"name": (1, "string"), "vendor_version": (2, "string")},
    "csi.v1.GetPluginCapabilitiesRequest": {},
    "csi.v1.GetPluginCapabilitiesResponse": {},
    "csi.v1.ProbeRequest": {},
    "csi.v1.ProbeResponse": {},
    "csi.v1.NodeGetCapabilitiesRequest": {},
    "csi.v1.NodeGetCapabilitiesResponse": {},
    "csi.v1.NodeGetInfoRequest": {},
    "csi.v1.NodeGetInfoResponse": {"node_id": (1, "string")},
    "csi.v1.BlockVolume": {},
    "csi.v1.AccessMode": {"mode": (1, "int32")},
    "csi.v1.VolumeCapability": {"block": (1, "csi.v1.BlockVolume"), "access_mode": (3, "csi.v1.AccessMode")},
    "csi.v1.NodePublishVolumeRequest": {
        "volume_id": (1, "string"),
        "target_path": (4, "string"),
        "volume_capability": (5, "csi.v1.VolumeCapability"),
        "readonly": (6, "bool"),
        "secrets": (7, "map"),
        "volume_context": (8, "map"),
    },
    "csi.v1.NodePublishVolumeResponse": {},
    "csi.v1.NodeUnpublishVolumeRequest": {"volume_id": (1, "string"), "target_path": (2, "string")},
    "csi.v1.NodeUnpublishVolumeResponse": {},
    "pluginregistration.InfoRequest": {},
    "pluginregistration.PluginInfo": {
        "type": (1, "string"),
        "name": (2, "string"),
        "endpoint": (3, "string"),
        "supported_versions": (4, "strings"),
    },
    "pluginregistration.RegistrationStatus": {"plugin_registered": (1, "bool"), "error": (2, "string")},
    "pluginregistration.RegistrationStatusResponse": {},
}
"""Of each message the fields by name: number, and type ("map" and "strings" are of strings)."""


@cache
def message_class(name: str) -> Any:
    """Return the class of a message, such as `csi.v1.ProbeRequest`."""
    from google.protobuf import message_factory

    found: Any = message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))
    return found


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for package in sorted({name.rpartition(".")[0] for name in _FIELDS}):
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        for name, fields in _FIELDS.items():
            if name.rpartition(".")[0] == package:
                _add_message(file.message_type.add(name=name.rpartition(".")[2]), name, fields)
        pool.Add(file)
    return pool


def _add_message(message: Any, name: str, fields: dict[str, tuple[int, str]]) -> None:
    for field, (number, kind) in fields.items():
        added = message.field.add(name=field, number=number)
        added.label = added.LABEL_REPEATED if kind in ("map", "strings") else added.LABEL_OPTIONAL
        if kind == "map":
            entry = f"{field.title().replace('_', '')}Entry"  # protoc's name, which the runtime asks for
            _add_map_entry(message.nested_type.add(name=entry))
            added.type, added.type_name = added.TYPE_MESSAGE, f".{name}.{entry}"
        elif "." in kind:
            added.type, added.type_name = added.TYPE_MESSAGE, f".{kind}"
        else:
            added.type = getattr(added, f"TYPE_{kind.removesuffix('s').upper()}")


def _add_map_entry(entry: Any) -> None:
    entry.options.map_entry = True
    for number, field in enumerate(("key", "value"), start=1):
        added = entry.field.add(name=field, number=number)
        added.label, added.type = added.LABEL_OPTIONAL, added.TYPE_STRING
