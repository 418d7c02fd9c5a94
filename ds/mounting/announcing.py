"""Saying what was mounted, to people, programs and systemd."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ds.output import human_bytes, plural, print_json, print_text

if TYPE_CHECKING:
    from ds.mounting.plans import Mounted, MountPlan


def announce(plan: MountPlan, mounted: Mounted, *, as_json: bool) -> None:
    """Print what was mounted on stdout."""
    if as_json:
        print_json("mount", {"mount_point": plan.mount_point, "source": plan.source, **asdict(mounted)})
    else:
        what = f"{plural(mounted.files, 'file')}, {human_bytes(mounted.bytes)}"
        print_text(f"mounted {plan.source} on {plan.mount_point}: commit {mounted.commit[:12]}, {what}")
        if plan.branch is not None:
            print_text(f"follows branch {plan.branch}")
        print_text(f"passthrough: {'yes' if mounted.passthrough else f'no: {mounted.reason}'}")
    sys.stdout.flush()


def notify_ready() -> None:
    """Tell systemd that the service is ready, if it is one of `Type=notify`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
            notice.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
