"""What a job asks of a cluster: how many workers on what, and whether there is or can be room for them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.util.placement_group import placement_group, remove_placement_group

from raylora.cluster.session import Cluster, look
from raylora.config import RaySection
from raylora.errors import ClusterError
from raylora.records import Say


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


def plan_workers(settings: RaySection, cluster: Cluster) -> WorkerPlan:
    """Resolve `auto` against the cluster, and refuse what it can never run.

    Raises:
        ClusterError: the workers need more than the cluster has, or will have within `scale_up_timeout_s`.
    """
    use_gpu = cluster.gpus > 0 if settings.use_gpu == "auto" else settings.use_gpu
    resources = {name: float(amount) for name, amount in settings.resources_per_worker.items()}
    if use_gpu:
        resources.setdefault("GPU", 1.0)
    wished = settings.num_workers
    if wished == "auto":
        workers: int | tuple[int, int] = max(cluster.free_slots(resources), 1) if use_gpu else 1
    else:
        workers = (wished[0], wished[1]) if isinstance(wished, list) else wished
    most = workers if isinstance(workers, int) else workers[1]
    reserved = int(resources.get("CPU", 1))
    alone = cluster.own and not use_gpu
    plan = WorkerPlan(
        workers, use_gpu, resources, max(cluster.cpus // most, reserved, 1) if alone else max(reserved, 1)
    )
    check_room(need_of(plan), cluster, settings)
    return plan


def one_worker(settings: RaySection) -> RaySection:
    """For one worker of a sweep, whatever `num_workers` says of a run."""
    return settings.model_copy(update={"num_workers": 1})


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
    if cluster.slots(need.each) >= need.count:
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
    return f"finds {cluster.slots(need.each)} slots: each must be on one node, and the nodes have {nodes}{more}"


def _wait_for_room(need: Need, cluster: Cluster, timeout_s: float) -> None:
    """Ask for the room, which makes an autoscaler add nodes, and give it back for those who take it."""
    group = placement_group([dict(need.each)] * need.count)
    try:
        if not group.wait(timeout_s):
            now = look(cluster)
            lacks = now.slots(need.each) < need.count
            why = f"it {_missing(need, now)}" if lacks else f"others hold it ({_free(need.each, now)})"
            what = f"found no room within {timeout_s:g} s: {why}"
            raise ClusterError(_too_large(need, what))
    finally:
        remove_placement_group(group)


def _too_large(need: Need, what: str) -> str:
    return (
        f"{need} {what}. Lower one of the two, or add nodes; where the cluster grows by itself, set "
        "`ray.scale_up_timeout_s` to the seconds that may take."
    )


def tell_wait(need: Need, cluster: Cluster, say: Say) -> None:
    """Say what others hold of a shared cluster, where the job must wait for it now."""
    if cluster.own:
        return
    now = look(cluster)
    for name, amount in need.each.items():
        if amount * need.count > (now.free or {}).get(name, 0.0):
            say(f"waiting    for {amount * need.count:g} {name}: {_free([name], now)}, other jobs hold the rest")
            return


def tell_bound(each: Mapping[str, float], count: int, cluster: Cluster, say: Say) -> None:
    """Say where `count` workers, as many as are free, are fewer than the cluster has room for."""
    room = cluster.slots(each)
    if count < room and count == max(cluster.free_slots(each), 1):
        say(f"workers    {count}, where the cluster has room for {room}: {_free(each, cluster)}")


def _free(names: Iterable[str], cluster: Cluster) -> str:
    free, there = cluster.free or {}, cluster.resources
    return ", ".join(f"{free.get(name, 0.0):g} of {there.get(name, 0.0):g} {name}" for name in names) + " are free"


def remote_options(plan: WorkerPlan) -> dict[str, Any]:
    """One worker's share, as options of a Ray task or actor."""
    resources = dict(plan.resources_per_worker)
    return {"num_cpus": resources.pop("CPU", 0.0), "num_gpus": resources.pop("GPU", 0.0), "resources": resources}
