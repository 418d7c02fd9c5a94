"""What do a thousand Datasets cost: the operator, the agent of their namespace, and the API server that both ask?

Starts a real API server, etcd, scheduler and controller manager, and a real S3. `--runtimes` CacheRuntimes without
workers and `--datasets` Datasets with one file each are declared; then the operator starts from cold, with the rights
of its manifests: until each status is told. Its requests are counted for a while in which nothing changes, then specs
are edited, one after the other, until `observedGeneration` follows. After that the agent starts from cold: until each
source has been listed and committed. Its work is counted for a while, then files are put into some sources, all at
once: until each is in the status. All of it shares the processors with the servers.

Needs Linux, root and the built Kubernetes: python -m tests.services.install kube

    python -m benchmarks.dataset_controller --json dataset_controller.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sources import open_store
from tests.dataset_controller.operator.acting import API, Admin, metrics, operator, requests
from tests.services.kube.cluster import cluster
from tests.services.processes import free_port, started
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.processes import Process
    from tests.services.weed import S3Server

NAMESPACE = "many"
_STEADY_SECONDS = 60.0
_MOST_SECONDS = 600.0
_DS = str(Path(sys.executable).with_name("ds"))


def run(*, datasets: int, runtimes: int, edits: int, changes: int, steady_seconds: float) -> dict[str, Any]:
    """Measure, and return what was found."""
    with tempfile.TemporaryDirectory(prefix="forebay-controller-") as name:
        directory = Path(name)
        with (
            s3_server(directory / "s3", buckets=("lake", "versions")) as s3,
            cluster(directory / "kube") as running,
            running.client() as client,
        ):
            admin = Admin(running, client)
            admin.install()
            admin.new_namespace(NAMESPACE)
            declare(admin, s3, datasets=datasets, runtimes=runtimes)
            found: dict[str, Any] = {"datasets": datasets, "runtimes": runtimes, "processors": os.cpu_count()}
            with operator(admin, directory) as (process, url):
                found["operator"] = measure_operator(admin, process, url, datasets, runtimes, edits, steady_seconds)
            with agent(admin, s3, directory) as (process, url):
                found["agent"] = measure_agent(admin, s3, process, url, datasets, changes, steady_seconds)
            return found


def declare(admin: Admin, s3: S3Server, *, datasets: int, runtimes: int) -> None:
    """Apply all objects, and put a file into each source."""
    lake: Any = open_store("s3://lake/", s3.options)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: lake.put(f"{number:04}/0.bin", b"x" * 1000), range(datasets)))
    tiers = [{"path": "/var/cache/forebay", "capacity": "64Mi"}]
    for number in range(runtimes):
        admin.apply("CacheRuntime", NAMESPACE, f"cache-{number}", {"replicas": 0, "tiers": tiers})
    place = {"options": {"endpoint_url": s3.endpoint}, "secretRef": {"name": "s3"}}
    for number in range(datasets):
        spec = {
            "mounts": [{"name": "raw", "uri": f"s3://lake/{number:04}", "path": "", **place}],
            "repo": {"uri": f"s3://versions/{number:04}", **place},
            "sync": {"interval": "10s"},
            "cache": {"runtimeRef": {"name": f"cache-{number % runtimes}"}},
        }
        admin.apply("Dataset", NAMESPACE, f"data-{number:04}", spec)


def measure_operator(
    admin: Admin, process: Process, url: str, datasets: int, runtimes: int, edits: int, steady_seconds: float
) -> dict[str, Any]:
    """Measure an operator that has just begun to act."""
    begun = time.monotonic()
    wait(lambda: is_settled(admin, url, datasets, runtimes))
    cold, first = time.monotonic() - begun, requests(url)
    steady = Steady(process, lambda: requests(url))
    time.sleep(steady_seconds)
    idle = steady.figures()
    took = sorted(edit(admin, number % datasets) for number in range(edits))
    return {
        "seconds_from_cold": round(cold, 1),
        "requests_from_cold": round(first),
        **idle,
        "edit_to_status_p50_seconds": round(statistics.median(took), 3),
        "edit_to_status_p99_seconds": round(took[min(len(took) - 1, int(0.99 * len(took)))], 3),
    }


def measure_agent(
    admin: Admin, s3: S3Server, process: Process, url: str, datasets: int, changes: int, steady_seconds: float
) -> dict[str, Any]:
    """Measure an agent that has just started."""
    begun = time.monotonic()
    wait(lambda: with_files(admin, 1) >= datasets)
    cold, work = time.monotonic() - begun, cpu_seconds(process.pid)
    steady = Steady(process, lambda: total(url, "forebay_agent_api_requests_total"))
    looked, asked = total(url, "forebay_agent_looks"), s3.requests()
    time.sleep(steady_seconds)
    idle = steady.figures()
    rates = {
        "looks_per_second": round((total(url, "forebay_agent_looks") - looked) / steady_seconds, 1),
        "s3_requests_per_second": round((s3.requests() - asked) / steady_seconds, 1),
    }
    lake: Any = open_store("s3://lake/", s3.options)
    begun, seen = time.monotonic(), dict[str, float]()
    for number in range(changes):
        lake.put(f"{number:04}/1.bin", b"y" * 1000)

    def all_seen() -> bool:
        for item in listed(admin):
            if (item.get("status") or {}).get("files") == 2:
                seen.setdefault(item["metadata"]["name"], time.monotonic() - begun)
        return len(seen) == changes

    wait(all_seen)
    return {
        "seconds_from_cold": round(cold, 1),
        "cpu_seconds_from_cold": round(work, 1),
        **idle,
        **rates,
        "change_to_status_p50_seconds": round(statistics.median(seen.values()), 1),
        "change_to_status_max_seconds": round(max(seen.values()), 1),
        "threads_that_look": 8,
    }


class Steady:
    """What a process does from now on.

    Args:
        process: Whose.
        count: Its requests to the API server so far.
    """

    def __init__(self, process: Process, count: Callable[[], float]) -> None:
        self._process, self._count = process, count
        self._begun, self._before, self._cpu = time.monotonic(), count(), cpu_seconds(process.pid)

    def figures(self) -> dict[str, float]:
        """Return requests and processor time by the second, and the memory."""
        seconds = time.monotonic() - self._begun
        return {
            "steady_requests_per_second": round((self._count() - self._before) / seconds, 2),
            "steady_cpu_share": round((cpu_seconds(self._process.pid) - self._cpu) / seconds, 3),
            "peak_rss_mib": round(peak_mib(self._process.pid)),
        }


@contextmanager
def agent(admin: Admin, s3: S3Server, directory: Path) -> Iterator[tuple[Process, str]]:
    """Run the agent of the namespace, with the secret that its pod would mount."""
    port, home = free_port(), directory / "agent"
    secret = home / "secrets" / "s3"
    secret.mkdir(parents=True)
    secret.parent.chmod(0o700)
    for option, text in (("key", s3.key), ("secret", s3.secret)):
        (secret / option).write_text(text)
    environment = {**os.environ, "KUBECONFIG": str(admin.cluster.kubeconfig()), "FOREBAY_HOME": str(home)}
    command = [_DS, "agent", "--namespace", NAMESPACE, "--listen", f"127.0.0.1:{port}", "--log", "json"]
    with started(
        command, log=directory / "agent.log", ready=lambda each: each.says("agent ready"), env=environment
    ) as process:
        yield process, f"http://127.0.0.1:{port}"


def edit(admin: Admin, number: int) -> float:
    """Edit a Dataset, and return the seconds until its status follows."""
    name = f"data-{number:04}"
    path = f"/apis/{API}/namespaces/{NAMESPACE}/datasets/{name}"
    begun = time.monotonic()
    priority = admin.get("Dataset", NAMESPACE, name)["metadata"]["generation"]
    wanted = admin.api.ask("PATCH", path, {"spec": {"cache": {"priority": priority}}}, merges=True)
    generation = wanted["metadata"]["generation"]
    wait(lambda: admin.status("Dataset", NAMESPACE, name).get("observedGeneration") == generation, poll=0.01)
    return time.monotonic() - begun


def is_settled(admin: Admin, url: str, datasets: int, runtimes: int) -> bool:
    """Say whether each status is told, and nothing waits."""
    if metrics(url)["forebay_controller_queue_objects"]:
        return False
    told = sum("observedGeneration" in (each.get("status") or {}) for each in listed(admin))
    sets = admin.api.ask("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets")["items"]
    return told == datasets and len(sets) == runtimes


def listed(admin: Admin) -> list[dict[str, Any]]:
    """Return all Datasets."""
    found: list[dict[str, Any]] = admin.api.ask("GET", f"/apis/{API}/namespaces/{NAMESPACE}/datasets")["items"]
    return found


def with_files(admin: Admin, count: int) -> int:
    """Return how many Datasets have a version of so many files."""
    return sum((each.get("status") or {}).get("files") == count for each in listed(admin))


def total(url: str, name: str) -> float:
    """Return the sum of a metric over its labels."""
    return sum(value for key, value in metrics(url).items() if key.partition("{")[0] == name)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the most memory that a process had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def wait(holds: Callable[[], bool], *, poll: float = 0.5) -> None:
    """Wait for something to be true.

    Raises:
        TimeoutError: If it is not within ten minutes.
    """
    deadline = time.monotonic() + _MOST_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_MOST_SECONDS:g} s")
        time.sleep(poll)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=1000)
    parser.add_argument("--runtimes", type=int, default=50)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--changes", type=int, default=20, help="Sources that get another file.")
    parser.add_argument("--steady-seconds", type=float, default=_STEADY_SECONDS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = run(
        datasets=given.datasets,
        runtimes=given.runtimes,
        edits=given.edits,
        changes=given.changes,
        steady_seconds=given.steady_seconds,
    )
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
