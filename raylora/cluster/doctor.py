"""What a job needs of the machines around it, looked at one by one: `raylora doctor`."""

import os
import platform
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import ray
from packaging.requirements import Requirement

from raylora.cluster.events.trackers.installed import check_trackers
from raylora.cluster.placement import plan_workers
from raylora.cluster.session import Cluster, alive_nodes, ask_nodes, connect, environ
from raylora.cluster.storage.filesystem import locate
from raylora.cluster.storage.run_folder import open_storage
from raylora.config import Job
from raylora.errors import RayLoraError
from raylora.model.base.find import resolve

State = Literal["ok", "warning", "fault"]
SHOWN = ("ray", "torch", "transformers", "peft")
SHM = "/dev/shm"
SMALL_SHM = 2 * 2**30  # bytes; docker gives 64 MB
MEND_STORAGE = "Set `storage_path` to a folder that all nodes share and may write to, or to s3:// or gs://"
MARK = ".raylora-doctor-"


@dataclass(frozen=True)
class Finding:
    """One line. `mend`: what to do, empty where all is well."""

    check: str
    state: State
    found: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.state:<9}{self.check:<13}{self.found}" + (f". {self.mend}" if self.mend else "")


@dataclass(frozen=True)
class NodeFacts:
    """What one node says. `fault`: why it cannot write to storage."""

    mark: str
    fault: str | None
    shm_bytes: int | None


def examine(job: Job) -> Iterator[Finding]:
    """Finding by finding, as each is known. A `fault` is what this job would end on."""
    yield from _versions()
    yield from _tried("extras", lambda: _extras(job))
    yield from _tried("base model", lambda: _base(job))
    yield _port(job)
    yield from _on_cluster(job)


def _tried(check: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What a job would end on, as a finding."""
    try:
        return look()
    except RayLoraError as error:
        return [Finding(check, "fault", str(error).removesuffix("."))]


def _versions() -> list[Finding]:
    """The installed packages against the ranges that raylora names."""
    try:
        wanted = [Requirement(each) for each in requires("raylora") or []]
    except PackageNotFoundError:
        return [Finding("versions", "warning", "raylora is not installed as a package", "pip install it, to know")]
    wrong = [fault for each in wanted if each.marker is None for fault in _unmet(each)]
    named = ", ".join(f"{name} {version(name)}" for name in SHOWN if find_spec(name))
    return [Finding("versions", "fault" if wrong else "ok", f"python {platform.python_version()}, {named}"), *wrong]


def _unmet(wanted: Requirement) -> list[Finding]:
    mend = f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return [Finding("versions", "fault", f"{wanted.name} is not installed", mend)]
    if wanted.specifier.contains(found, prereleases=True):
        return []
    return [Finding("versions", "fault", f"{wanted.name} {found} is not {wanted.specifier}", mend)]


def _extras(job: Job) -> list[Finding]:
    check_trackers(job.train.trackers, environ())
    if job.tune.search_alg in ("optuna", "bayesian") and not find_spec("optuna"):
        what = f"`tune.search_alg: {job.tune.search_alg}` needs the package optuna"
        return [Finding("extras", "fault", what, "pip install 'raylora[tune]'")]
    return []


def _base(job: Job) -> list[Finding]:
    base = resolve(job.model)
    return [Finding("base model", "ok", f"{base.id} ({base.origin})")]


def _port(job: Job) -> Finding:
    """A fault for a job that names adapters to serve, else a warning."""
    serve = job.serve
    try:
        with closing(socket.create_server((serve.host, serve.port))):
            return Finding("port", "ok", f"{serve.host}:{serve.port} is free")
    except OSError as error:
        state: State = "fault" if serve.adapters or serve.adapter_root else "warning"
        what = f"{serve.host}:{serve.port} cannot be listened on: {os.strerror(error.errno or 0)}"
        return Finding("port", state, what, "For `raylora serve` set `serve.port` to another")


def _on_cluster(job: Job) -> Iterator[Finding]:
    try:
        with connect(job.ray) as cluster:
            yield Finding("ray", "ok", str(cluster))
            yield from _tried("workers", lambda: _workers(job, cluster))
            yield from _tried("storage", lambda: _nodes(job))
    except RayLoraError as error:
        yield Finding("ray", "fault", str(error).removesuffix("."))


def _workers(job: Job, cluster: Cluster) -> list[Finding]:
    """Whether there is room for them, GPUs included."""
    plan = plan_workers(job.ray, cluster)
    each = ", ".join(f"{amount:g} {name}" for name, amount in plan.resources_per_worker.items())
    on = "GPUs" if plan.use_gpu else f"CPUs{'' if cluster.gpus else ', as the cluster has no GPU'}"
    return [Finding("workers", "ok", f"{plan.most} of {each} each, on {on}")]


def _nodes(job: Job) -> list[Finding]:
    """Storage and shared memory, from a task on every node."""
    storage = open_storage(job)
    stat = storage.stat()
    if stat and not stat.is_folder:
        return [Finding("storage", "fault", f"{storage.address} is a file", MEND_STORAGE)]
    is_new = stat is None
    nodes, mark = alive_nodes(), f"{MARK}{uuid.uuid4().hex}-"
    answers = ask_nodes(_look, nodes, storage.address, mark)
    try:
        seen = {name for name in storage.files() if name.startswith(mark)} if storage.exists() else set[str]()
    finally:
        for name in [name for name in storage.files() if name.startswith(mark)] if storage.exists() else []:
            storage.inside(name).delete()
        if is_new and storage.is_local and storage.exists() and not storage.files():
            storage.delete()
    silent = [_name(node) for node in nodes if node["NodeID"] not in {each["NodeID"] for each, _ in answers}]
    faults = [Finding("node", "fault", f"{name} does not answer", "Look at its raylet's log") for name in silent]
    faults += [fault for node, facts in answers for fault in _storage_fault(storage.address, node, facts, seen)]
    written = Finding("storage", "ok", f"{storage.address} can be written to from {len(answers)} of {len(nodes)} nodes")
    return [*(faults or [written]), *(_shared_memory(node, facts) for node, facts in answers)]


def _storage_fault(address: str, node: Any, facts: NodeFacts, seen: set[str]) -> list[Finding]:
    if facts.fault:
        return [Finding("storage", "fault", f"{address} on {_name(node)}: {facts.fault}", MEND_STORAGE)]
    if facts.mark not in seen:
        return [Finding("storage", "fault", f"{address} on {_name(node)} is not the same folder as here", MEND_STORAGE)]
    return []


def _shared_memory(node: Any, facts: NodeFacts) -> Finding:
    """Ray's object store lies there; where it has no room Ray goes to disk, ten times as slow."""
    if facts.shm_bytes is None:
        return Finding("shm", "ok", f"{_name(node)} has no {SHM}; Ray uses files")
    size = f"{facts.shm_bytes / 2**30:.1f} GiB in {SHM} on {_name(node)}"
    if facts.shm_bytes >= SMALL_SHM:
        return Finding("shm", "ok", size)
    mend = "Give the container more: `docker run --shm-size=4g`, in Kubernetes an emptyDir of medium Memory"
    return Finding("shm", "warning", size, mend)


def _name(node: Any) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


@ray.remote(num_cpus=0)
def _look(address: str, mark: str) -> NodeFacts:
    return look_here(address, mark + uuid.uuid4().hex)


def look_here(address: str, mark: str) -> NodeFacts:
    """Leaves the mark in storage; whoever asked removes it."""
    shm = shutil.disk_usage(SHM).total if Path(SHM).is_dir() else None
    try:
        locate(address).inside(mark).write_text("")
    except OSError as error:
        return NodeFacts(mark, str(error).splitlines()[0], shm)
    return NodeFacts(mark, None, shm)


def is_faulty(findings: Sequence[Finding]) -> bool:
    return any(finding.state == "fault" for finding in findings)
