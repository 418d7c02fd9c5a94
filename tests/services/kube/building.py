"""Kubernetes 1.20.2 from Debian's source package, since nobody ships its binaries: about five minutes on two cores."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.services.install import default_cache, install_packages
from tests.services.unavailable import UnavailableError

VERSION = "v1.20.2"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
_BUILD = 3
"""Counts what is done to the sources here."""
_SOURCE = "kubernetes=1.20.5+really1.20.2-1.1+deb12u1"
_PROGRAMS = {"etcd": "etcd-server", "kubectl": "kubernetes-client", "openssl": "openssl"}
"""What runs beside the built ones, and Debian's packages of them; a kubectl of another package is as good."""
_BUILD_PACKAGES = ("dpkg-dev", "golang-go", "golang-github-modern-go-reflect2-dev")
_REFLECT2 = "github.com/modern-go/reflect2"
_KUBERNETES = "k8s.io/kubernetes"
_OPENAPI_MARK = "+k8s:openapi-gen="
_NOT_IN_OPENAPI = ("k8s.io/code-generator", "sample-apiserver", "kube-openapi", "gengo")
_TYPE_CHECK = "vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go"
_IS_NULL = "data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data))"
_BUILD_SECONDS = 2400
_SHORT_SECONDS = 600


def binaries() -> Path:
    """Return the directory of the built binaries."""
    return default_cache() / f"kubernetes-{VERSION}-{_BUILD}"


def missing() -> str | None:
    """Say what keeps a cluster from starting, or None."""
    absent = _absent()
    if absent:
        return f"no {', '.join(absent)} (Debian packages {' '.join(absent.values())})"
    lacking = [name for name in COMPONENTS if not (binaries() / name).is_file()]
    return f"no {', '.join(lacking)}" if lacking else None


def install(cache: Path) -> None:
    """Install Debian's etcd, and build Kubernetes out of Debian's source package, as root.

    Raises:
        UnavailableError: If Debian's packages, Go among them, or the sources cannot be had here.
        RuntimeError: If they cannot be built.
    """
    work = cache / "kubernetes-build"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        build = _Build(work)
        try:
            install_packages(*_absent().values(), *_BUILD_PACKAGES)
            build.fetch()
        except (RuntimeError, PermissionError, subprocess.SubprocessError) as error:
            raise UnavailableError(f"it cannot be had here: {error}") from error
        build.mend()
        build.generate_openapi()
        binaries().mkdir(exist_ok=True)
        for component in COMPONENTS:
            build.compile(f"{_KUBERNETES}/cmd/{component}", binaries() / component)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _absent() -> dict[str, str]:
    """Return the programs that are not there, and their packages."""
    return {program: package for program, package in _PROGRAMS.items() if shutil.which(program) is None}


class _Build:
    """One build.

    Args:
        work: An empty directory.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._tree = work / "gopath/src" / _KUBERNETES

    def fetch(self) -> None:
        """Download and unpack the source package, through an apt state of its own: the system's stays as it is."""
        state = self._work / "apt"
        for name in ("lists/partial", "cache/archives/partial"):
            (state / name).mkdir(parents=True)
        (state / "debian.sources").write_text(_source_lines())
        options = {
            "Dir::Etc::sourcelist": state / "debian.sources",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": state / "lists",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        _run([*apt, "update"], cwd=self._work)
        unpacked = self._work / "source"
        unpacked.mkdir()
        _run([*apt, "source", _SOURCE], cwd=unpacked)
        self._tree.parent.mkdir(parents=True)
        next(unpacked.glob("kubernetes-*/")).rename(self._tree)

    def mend(self) -> None:
        """Change what does not work with a Go that is newer than these sources."""
        # 1.0.1 walks maps through an internal that Go 1.18 changed; Debian's 1.0.2 has the fix
        vendored = self._tree / "vendor" / _REFLECT2
        shutil.rmtree(vendored)
        shutil.copytree(Path("/usr/share/gocode/src") / _REFLECT2, vendored)
        # it compared addresses, and newer ones keep every empty string at the address of what is nothing
        checks = self._tree / _TYPE_CHECK
        if checks.read_text().count(_IS_NULL) != 1:
            raise RuntimeError(f"{checks} is another one than was mended here")
        checks.write_text(checks.read_text().replace(_IS_NULL, "data == nil"))

    def generate_openapi(self) -> None:
        """Write the one generated file that the source package lacks."""
        generator = self._work / "openapi-gen"
        self.compile(f"{_KUBERNETES}/vendor/k8s.io/kube-openapi/cmd/openapi-gen", generator)
        violations = self._work / "violations"
        arguments = {
            "-i": ",".join(self._openapi_packages()),
            "-p": f"{_KUBERNETES}/pkg/generated/openapi",
            "-O": "zz_generated.openapi",
            "-h": "vendor/k8s.io/code-generator/hack/boilerplate.go.txt",
            "-r": str(violations),
        }
        _run([str(generator), *(word for pair in arguments.items() for word in pair)], self._tree, self._environment())
        known = self._tree / "api/api-rules/violation_exceptions.list"
        if violations.read_text() != known.read_text():
            raise RuntimeError(f"openapi-gen found other violations than {known}: it read other packages")

    def compile(self, package: str, to: Path) -> None:
        """Build one program; its file appears when it is whole."""
        part = to.with_suffix(".part")
        flags = " ".join(["-s -w", *_version_flags()])
        command = ["go", "build", "-tags", "providerless,dockerless", "-ldflags", flags, "-o", str(part), package]
        _run(command, self._tree, self._environment(), seconds=_BUILD_SECONDS)
        part.rename(to)

    def _environment(self) -> dict[str, str]:
        go = {"GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        return {**os.environ, **go, "GOPATH": str(self._work / "gopath"), "GOCACHE": str(self._work / "gocache")}

    def _openapi_packages(self) -> list[str]:
        """Name the Go packages whose types are marked for the schema."""
        found = set()
        for top in ("pkg", "cmd", "plugin", "vendor/k8s.io"):
            for directory, _, names in os.walk(self._tree / top, followlinks=True):
                files = (Path(directory, name) for name in names if name.endswith(".go"))
                package = os.path.relpath(directory, self._tree)
                if not any(part in package for part in _NOT_IN_OPENAPI) and any(_is_marked(file) for file in files):
                    found.add(f"{_KUBERNETES}/{package}")
        return sorted(found)


def _is_marked(file: Path) -> bool:
    return _OPENAPI_MARK in file.read_text(errors="replace")


def _source_lines() -> str:
    """Turn the system's own Debian sources into those of source packages, so that no server is named here."""
    stanzas = [
        stanza
        for file in sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))
        for stanza in re.split(r"\n\s*\n", file.read_text())
        if "bookworm" in stanza and re.search(r"^Types:.*\bdeb\b", stanza, re.MULTILINE)
    ]
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
    lines = [line for file in lists if file.is_file() for line in file.read_text().splitlines()]
    stanzas += [stanza for line in lines if (stanza := _stanza(line))]
    if not stanzas:
        raise RuntimeError("this machine's apt has no source of Debian bookworm, whose kubernetes is built here")
    return "\n\n".join(re.sub(r"(?m)^Types:.*$", "Types: deb-src", stanza) for stanza in stanzas) + "\n"


def _stanza(line: str) -> str | None:
    """Turn a line of the older form into a stanza; None if it is none of bookworm's."""
    found = re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>bookworm\S*)\s+(?P<components>.+)", line)
    if found is None:
        return None
    return f"Types: deb\nURIs: {found['uri']}\nSuites: {found['suite']}\nComponents: {found['components']}"


def _version_flags() -> list[str]:
    values = {
        "gitVersion": VERSION,
        "gitMajor": "1",
        "gitMinor": "20",
        "gitTreeState": "clean",
        "gitCommit": "faecb196815e248d3ecfb03c680a4507229c2a56",
        "buildDate": "2021-01-13T13:20:00Z",
    }
    packages = [f"{_KUBERNETES}/vendor/k8s.io/{name}" for name in ("component-base/version", "client-go/pkg/version")]
    return [f"-X {package}.{name}={value}" for package in packages for name, value in values.items()]


def _run(
    command: list[str], cwd: Path, environment: dict[str, str] | None = None, *, seconds: int = _SHORT_SECONDS
) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} {command[-1]}: {done.stderr.strip()[-2000:]}")
