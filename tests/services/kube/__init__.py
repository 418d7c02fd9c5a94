"""A real Kubernetes on loopback: etcd, API server, scheduler, controller manager and nodes that run pods as processes.

A `Service` of `tests.services.install`.
"""

from __future__ import annotations

from tests.services.kube.building import install, missing

__all__ = ["install", "missing"]
