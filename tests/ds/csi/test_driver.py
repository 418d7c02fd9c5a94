"""The driver over its real sockets, with real mounts of a real dataset; only the kubelet is played."""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from cache_runtime.mount.mountinfo import mount_at
from dataset_controller.manifests import parse_manifest
from ds.csi.homes import Allowed
from ds.csi.messages import message_class
from ds.csi.serving import Sockets, serving
from ds.csi.volumes import Node, Volumes
from ds.errors import NotMountedError
from ds.mounting.records import Records, is_running
from tests.ds.csi.kubelet import Kubelet, calling, publishing
from tests.services import fuse
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dataset_controller.model import CacheRuntime, Dataset
    from tests.ds.cached_shop import CachedShop

SECONDS = 30.0
SECRET = "never-in-a-log"


class Declared:
    """The objects of namespace `ml`."""

    def __init__(self, text: str) -> None:
        self._found: dict[str, Any] = {each.kind: each for each in parse_manifest(text, source="test", variables={})}

    def dataset(self, namespace: str, name: str) -> Dataset | None:
        found: Dataset | None = self._named("Dataset", namespace, name)
        return found

    def runtime(self, namespace: str, name: str) -> CacheRuntime | None:
        found: CacheRuntime | None = self._named("CacheRuntime", namespace, name)
        return found

    def _named(self, kind: str, namespace: str, name: str) -> Any:
        found = self._found[kind]
        return found if (namespace, name) == ("ml", found.metadata.name) else None


class Place:
    """A node's directories, with a driver that serves the shop's dataset."""

    def __init__(self, root: Path, shop: CachedShop) -> None:
        self.root, self.shop = root, shop
        self.kubelet_dir, self.state = root / "kubelet", root / "state/volumes"
        self.sockets = Sockets.below(str(self.kubelet_dir))
        allowed = Allowed(caches=(str(shop.directory),), files=(str(shop.directory),))
        self.node = Node("n1", str(self.kubelet_dir), root / "state", root / "nodes", allowed)
        self.target = self.kubelet_dir / "pods/1/volumes/kubernetes.io~csi/data/mount"
        self.target.parent.mkdir(parents=True)

    @property
    def volumes(self) -> Volumes:
        return Volumes(self.node, Declared((self.shop.directory / "here/dataset.yaml").read_text()))

    def records(self) -> list[Any]:
        return [record for home in self.state.glob("*") for record in Records(home).all()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Place]:
    from tests.ds.cached_shop import CachedShop

    require(fuse.missing())
    shop = CachedShop(tmp_path, monkeypatch, capfd).create()
    with TemporaryDirectory(prefix="csi-") as root:  # names of sockets are short
        made = Place(Path(root), shop)
        try:
            yield made
        finally:
            with suppress(NotMountedError):
                made.volumes.unpublish(str(made.target))


@pytest.fixture
def kubelet(place: Place) -> Iterator[Kubelet]:
    with serving(place.volumes, place.sockets), calling(place.sockets.csi) as found:
        yield found


def is_seen(target: Path) -> bool:
    found = mount_at(os.fspath(target))
    return found is not None and found.kind == "fuse.forebay"


def walked(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refused(kubelet: Kubelet, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.publish(request)
    error: Any = caught.value
    return error.code().name, error.details()


def test_a_pod_sees_the_files_until_its_volume_is_unpublished(place: Place, kubelet: Kubelet) -> None:
    request = publishing(str(place.target), dataset="pets", revision="main")
    kubelet.publish(request)
    kubelet.publish(request)  # the kubelet did not get the answer
    assert walked(place.target) == walked(place.shop.directory / "raw")
    with pytest.raises(OSError, match="Read-only file system"):
        (place.target / "new").write_text("")
    (record,) = place.records()
    kubelet.unpublish(str(place.target))
    kubelet.unpublish(str(place.target))
    assert (is_seen(place.target), place.target.exists(), list(place.state.iterdir())) == (False, False, [])
    assert not is_running(record.supervisor)


def test_a_mount_whose_driver_died_is_taken_away_and_made_anew(place: Place) -> None:
    with serving(place.volumes, place.sockets), calling(place.sockets.csi) as kubelet:
        kubelet.publish(publishing(str(place.target), dataset="pets"))
    (record,) = place.records()  # the driver ended in good order; its mounts stay
    for process in (record.supervisor, record.server):
        os.kill(process, signal.SIGKILL)
    with serving(place.volumes, place.sockets), calling(place.sockets.csi) as kubelet:
        kubelet.publish(publishing(str(place.target), dataset="pets"))
        assert walked(place.target) == walked(place.shop.directory / "raw")
        (again,) = place.records()
        for process in (again.supervisor, again.server):
            os.kill(process, signal.SIGKILL)
        kubelet.unpublish(str(place.target))
        assert (is_seen(place.target), place.target.exists()) == (False, False)


def test_what_cannot_be_mounted_leaves_nothing(
    place: Place, kubelet: Kubelet, caplog: pytest.LogCaptureFixture
) -> None:
    target = str(place.target)
    code, said = refused(kubelet, publishing(target, dataset="cats", secrets={"key": SECRET}))
    assert (code, "no Dataset cats" in said) == ("NOT_FOUND", True)
    code, said = refused(kubelet, publishing(target, dataset="pets", revision="v9", secrets={"key": SECRET}))
    assert (code, "v9" in said) == ("NOT_FOUND", True)
    code, said = refused(kubelet, publishing(target, dataset="pets", path="nowhere", secrets={"key": SECRET}))
    assert (code, "nowhere" in said) == ("NOT_FOUND", True)
    code, said = refused(kubelet, publishing("/etc/x", dataset="pets", secrets={"key": SECRET}))
    assert (code, "not below" in said) == ("INVALID_ARGUMENT", True)
    assert (is_seen(place.target), place.target.exists(), list(place.state.glob("*"))) == (False, False, [])
    assert SECRET not in caplog.text


def test_what_is_not_ours_is_not_removed(place: Place, kubelet: Kubelet) -> None:
    place.target.mkdir()
    (place.target / "kept").touch()
    with pytest.raises(grpc.RpcError, match="no mount of ours"):
        kubelet.unpublish(str(place.target))
    (place.target / "kept").unlink()  # it was still there


def test_a_link_out_of_the_kubelets_directory_is_refused(place: Place, kubelet: Kubelet) -> None:
    outside = place.root / "outside"
    outside.mkdir()
    (place.kubelet_dir / "pods/2").symlink_to(outside)
    code, said = refused(kubelet, publishing(str(place.kubelet_dir / "pods/2/mount"), dataset="pets"))
    assert (code, "symbolic link" in said, list(outside.iterdir())) == ("INVALID_ARGUMENT", True, [])


def test_the_kubelet_finds_the_driver_and_what_it_can(place: Place) -> None:
    with serving(place.volumes, place.sockets) as driver:
        with calling(place.sockets.registration) as kubelet:
            info = kubelet.call(
                "pluginregistration.Registration/GetInfo",
                message_class("pluginregistration.InfoRequest")(),
                "PluginInfo",
            )
            assert (info.type, info.name, list(info.supported_versions)) == ("CSIPlugin", "forebay.dev", ["1.0.0"])
            told = message_class("pluginregistration.RegistrationStatus")(plugin_registered=True)
            kubelet.call("pluginregistration.Registration/NotifyRegistrationStatus", told, "RegistrationStatusResponse")
            assert driver.is_registered.is_set()
        with calling(Path(info.endpoint)) as kubelet:
            asked = message_class("csi.v1.NodeGetInfoRequest")()
            assert kubelet.call("csi.v1.Node/NodeGetInfo", asked, "NodeGetInfoResponse").node_id == "n1"
            for method in ("Identity/Probe", "Identity/GetPluginCapabilities", "Node/NodeGetCapabilities"):
                name = method.partition("/")[2]
                kubelet.call(f"csi.v1.{method}", message_class(f"csi.v1.{name}Request")(), f"{name}Response")
        for socket in (place.sockets.csi, place.sockets.registration):
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert not place.sockets.registration.exists()
