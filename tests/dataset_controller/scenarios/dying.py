"""An operator that dies: killed right before and right after each kind of action, once each, and started anew.

`python -m tests.dataset_controller.scenarios.dying DEATHS KUBECONFIG ADMIN_KUBECONFIG NAMESPACE`, until SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.api import ClusterApi
from dataset_controller.operator.planning.actions import Apply, CreateToken
from dataset_controller.operator.running import OperatorConfig, run_operator
from ds.working import log_to_stderr

if TYPE_CHECKING:
    from dataset_controller.operator.planning.actions import Action

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL("libc.so.6")
_KUBECTL_SECONDS = 60


def _what(action: Action) -> str:
    kind = action.document["kind"] if isinstance(action, Apply | CreateToken) else action.ref.kind
    return f"{type(action).__name__} {kind}"


def _let_die(deaths: Path) -> None:
    """Let this process be killed around the first action of a kind that none was killed around before."""
    do = ClusterApi.do
    known = set(deaths.read_text().splitlines())

    one_at_a_time = threading.Lock()  # or one is killed in the middle of what another one does, and not after it

    def dying(self: ClusterApi, action: Action, uid: str = "") -> dict[str, Any] | None:
        with one_at_a_time:
            _die(f"before {_what(action)}")
            done = do(self, action, uid)
            _die(f"after {_what(action)}")
            return done

    def _die(where: str) -> None:
        if where not in known:
            with deaths.open("a") as file:
                file.write(f"{where}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    ClusterApi.do = dying  # type: ignore[method-assign] # the fault of this test


def _operate(deaths: Path, namespace: str) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log_to_stderr(as_json=False)
    _let_die(deaths)
    run_operator(OperatorConfig(host="127.0.0.1", port=0, lease_namespace=namespace))


def _forget_lease(kubeconfig: str, namespace: str) -> None:
    """Let the next one begin at once."""
    subprocess.run(
        ["kubectl", "--kubeconfig", kubeconfig, "--namespace", namespace, "delete", "lease", "--all"],
        check=True, timeout=_KUBECTL_SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def main(deaths: Path, kubeconfig: str, admin: str, namespace: str) -> int:
    """Start operators, each forked from here so that it is there at once, until one ends by itself."""
    os.environ["KUBECONFIG"] = kubeconfig  # read when the client is imported
    import kubernetes.client  # noqa: F401 - so that no child has to

    deaths.touch()
    print("ready", flush=True)
    while True:
        _forget_lease(admin, namespace)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _operate(deaths, namespace)
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_, pid=child: os.kill(pid, signal.SIGTERM))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -signal.SIGKILL:
            return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
