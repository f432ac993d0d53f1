"""The same jobs on clusters of 1, 2 and 4 nodes of this machine: where their parts run, and what cannot be placed."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from commands import ON_CLUSTERS, ROOT, command, end_processes_of, run
from safetensors.torch import load_file
from tiny import largest_difference, make_adapter

from raylora.cluster.session import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, ON_CLUSTERS]

Bases = Callable[[str], Path]
Write = Callable[[int], str]

NODES = """
import json, os, sys
from ray.cluster_utils import Cluster
cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": int(sys.argv[3]), "include_dashboard": True, "dashboard_port": int(sys.argv[2])},
)
for _ in range(int(sys.argv[1]) - 1):
    cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:  # the id of a node to take away
    cluster.remove_node(next(node for node in cluster.worker_nodes if node.node_id == line.strip()))
cluster.shutdown()
"""
# what Ray's control store remembers of all actors, ended ones too
ACTORS = """
import json, logging, sys, ray
from ray._private.state import actors
ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
print(json.dumps([(each["ActorClassName"], each["Name"], each["Address"]["NodeID"]) for each in actors().values()]))
"""


@dataclass(frozen=True)
class Running:
    """A cluster to send jobs to."""

    address: str
    dashboard: str
    nodes: int
    take_away: Callable[[str], None] = lambda node: None

    def job(self, *words: str, timeout_s: float = 280) -> str:
        """Output of a command that joins the cluster and succeeds."""
        result = run(*words, f"ray.address={self.address}", timeout_s=timeout_s)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def actors(self, *kinds: str) -> Counter[str]:
        """How many actors of these classes, or names, ran on each node."""
        output = subprocess.run(
            [sys.executable, "-c", ACTORS, self.address], capture_output=True, text=True, timeout=60
        )
        assert output.returncode == 0, output.stderr
        found = json.loads(output.stdout.splitlines()[-1])
        return Counter(
            node for kind, name, node in found if any(k in kind or k in (name or "") for k in kinds) and node
        )


@contextmanager
def simulated(nodes: int, head_cpus: int = 1) -> Generator[Running]:
    """`ray.cluster_utils.Cluster`, one CPU a node, in a process of its own."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", NODES, str(nodes), str(port), str(head_cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0"},  # or an idle endpoint uses one replica
    ) as process:
        assert process.stdout
        assert process.stdin
        lines = iter(process.stdout.readline, "")
        address = next(line.strip() for line in lines if re.fullmatch(r"[\d.]+:\d+", line.strip()))
        try:
            yield Running(address, f"http://127.0.0.1:{port}", nodes, partial(print, file=process.stdin, flush=True))
        finally:
            process.stdin.close()
            process.wait(60)


@pytest.fixture(scope="module", params=[1, 2, 4])
def cluster(request: pytest.FixtureRequest) -> Iterator[Running]:
    with simulated(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two nodes, each by a `ray start` of its own."""
    folder = tmp_path_factory.mktemp("ray")
    port, dashboard = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    common = ["--num-cpus=1", "--disable-usage-stats"]
    head = [
        f"--port={port}",
        f"--dashboard-port={dashboard}",
        f"--temp-dir={folder}",
        f"--ray-client-server-port={free_port()}",
    ]
    try:
        for words in (["--head", "--node-ip-address=127.0.0.1", *head], [f"--address={address}"]):
            begun = run("ray", "start", *words, f"--dashboard-agent-listen-port={free_port()}", *common)
            assert begun.returncode == 0, begun.stdout + begun.stderr
        yield Running(address, f"http://127.0.0.1:{dashboard}", 2)
    finally:
        end_processes_of(folder)


def settings(bases: Bases, data: str, storage: Path, name: str) -> list[str]:
    return [
        f"data.train={data}",
        f"model.base_model={bases('bert')}",
        f"storage_path={storage}",
        f"run_name={name}",
        "train.num_train_epochs=2",
        "train.learning_rate=0.01",
        "train.per_device_train_batch_size=4",
        "train.bf16=false",  # its rounding makes 5e-4 of what the order of a sum changes
    ]


@pytest.fixture(scope="module")
def reference(bases: Bases, tmp_path_factory: pytest.TempPathFactory, reviews: list[dict[str, str]]) -> Path:
    """The data, and the adapter that one process on a Ray of its own makes of it with 4 accumulated batches."""
    folder = tmp_path_factory.mktemp("reference")
    data = folder / "reviews.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in reviews[:94]))
    words = [*settings(bases, str(data), folder, "alone"), "train.gradient_accumulation_steps=4"]
    result = run("jobs/train.py", *words, timeout_s=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def adapter_of(run_folder: Path) -> dict[str, object]:
    return load_file(run_folder / "adapter" / "adapter_model.safetensors")


def test_train_gives_the_same_adapter_from_a_worker_on_every_node(
    cluster: Running, bases: Bases, reference: Path, tmp_path: Path
) -> None:
    words = settings(bases, str(reference / "reviews.jsonl"), tmp_path, "spread")
    share = [f"ray.num_workers={cluster.nodes}", f"train.gradient_accumulation_steps={4 // cluster.nodes}"]
    output = cluster.job("jobs/train.py", *words, *share)
    if cluster.nodes > 1:
        assert f"{cluster.nodes} nodes, {cluster.nodes} CPUs" in output
    assert largest_difference(adapter_of(tmp_path / "spread"), adapter_of(reference / "alone")) < 1e-5
    assert list(cluster.actors("RayTrainWorker").values()) == [1] * cluster.nodes


def test_tune_runs_its_trials_on_every_node(cluster: Running, bases: Bases, reference: Path, tmp_path: Path) -> None:
    words = settings(bases, str(reference / "reviews.jsonl"), tmp_path, "sweep")
    space = "tune.space={train.learning_rate: {loguniform: [1e-4, 1e-2]}}"
    output = cluster.job("jobs/tune.py", *words, "tune.num_samples=8", "tune.scheduler=none", "tune.pack=2", space)
    assert f"8, {min(8, 2 * cluster.nodes)} at once: {cluster.nodes} worker" in output
    assert list(cluster.actors("TrialWorker").values()) == [1] * cluster.nodes
    assert (tmp_path / "sweep" / "trials.csv").read_text().count(",finished,") == 8


def test_serve_puts_replicas_on_every_node(cluster: Running, bases: Bases, tmp_path: Path) -> None:
    """By `serve deploy` of the printed config; one proxy, since the nodes share this machine's ports."""
    folder = make_adapter(bases("bert"), tmp_path / "adapter", ("negative", "positive"))
    port = free_port()
    words = [f"serve.adapters.demo={folder}", f"serve.port={port}", f"storage_path={tmp_path}"]
    replicas = f"serve.autoscaling_config={{min_replicas: {cluster.nodes}, max_replicas: {cluster.nodes}}}"
    printed = run("raylora", "serve", *words, replicas, "serve.ray_actor_options={num_cpus: 0.8}", "--print-config")
    tree = {**yaml.safe_load(printed.stdout), "proxy_location": "HeadOnly"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(tree))
    deployed = run("serve", "deploy", "--address", cluster.dashboard, str(tmp_path / "serve.yaml"))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    try:
        seen = replicas_answering(port, cluster.nodes)
        assert len(seen) == cluster.nodes
        assert list(cluster.actors("endpoint#").values()) == [1] * cluster.nodes
    finally:
        ended = run("serve", "shutdown", "-y", "--address", cluster.dashboard)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def replicas_answering(port: int, count: int, timeout_s: float = 150) -> set[str]:
    """Ids of those that answer, once `count` do."""
    from urllib.error import URLError
    from urllib.request import urlopen

    seen: set[str] = set()
    until = time.monotonic() + timeout_s
    while len(seen) < count and time.monotonic() < until:
        try:
            with urlopen(f"http://127.0.0.1:{port}/info", timeout=10) as reply:
                seen.add(json.load(reply)["replica"])
        except (URLError, OSError, ValueError):
            time.sleep(0.5)
    return seen


def test_nodes_of_separate_ray_starts_train_and_tune_alike(
    started: Running, bases: Bases, reference: Path, tmp_path: Path
) -> None:
    words = settings(bases, str(reference / "reviews.jsonl"), tmp_path, "spread")
    started.job("jobs/train.py", *words, "ray.num_workers=2", "train.gradient_accumulation_steps=2")
    assert largest_difference(adapter_of(tmp_path / "spread"), adapter_of(reference / "alone")) < 1e-5
    assert list(started.actors("RayTrainWorker").values()) == [1, 1]
    space = "tune.space={train.learning_rate: {loguniform: [1e-4, 1e-2]}}"
    words = settings(bases, str(reference / "reviews.jsonl"), tmp_path, "sweep")
    started.job("jobs/tune.py", *words, "tune.num_samples=4", "tune.scheduler=none", "tune.pack=2", space)
    assert list(started.actors("TrialWorker").values()) == [1, 1]


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (
            "train",
            ["ray.num_workers=3"],
            r"`ray.num_workers` 3 with {CPU: 1} each .* needs 3 CPU; the cluster \(.*\) has 2",
        ),
        ("train", ["ray.resources_per_worker={CPU: 2}"], r"finds 0 slots: each must be on one node, .* 1 CPU; 1 CPU"),
        ("train", ["ray.use_gpu=true"], r"needs 1 GPU; the cluster \(.*\) has 0"),
        ("tune", ["ray.resources_per_worker={CPU: 1, tpu: 1}"], r"needs 1 tpu; the cluster \(.*\) has 0"),
        ("tune", ["ray.num_workers=3"], r"needs 3 CPU; the cluster \(.*\) has 2"),
    ],
)
def test_what_cannot_be_placed_ends_at_once_with_what_is_missing(
    started: Running, command: str, words: list[str], message: str, bases: Bases, reference: Path, tmp_path: Path
) -> None:
    job = [*settings(bases, str(reference / "reviews.jsonl"), tmp_path, "never"), *words]
    start = time.monotonic()
    refused = run(f"jobs/{command}.py", *job, f"ray.address={started.address}")
    assert (refused.returncode, time.monotonic() - start < 30) == (2, True), refused.stdout + refused.stderr
    assert re.search(message, refused.stderr), refused.stderr
    assert "add nodes" in refused.stderr


def test_replicas_that_cannot_be_placed_end_at_once_with_what_is_missing(
    started: Running, bases: Bases, tmp_path: Path
) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "adapter", ("negative", "positive"))
    words = [f"serve.adapters.demo={folder}", f"storage_path={tmp_path}", f"ray.address={started.address}"]
    for option, message in (
        ("serve.ray_actor_options={num_cpus: 2}", "finds 0 slots: each must be on one node"),
        ("serve.autoscaling_config={min_replicas: 3, max_replicas: 3}", "needs 3 CPU; the cluster"),
    ):
        refused = run("jobs/serve.py", *words, option)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stdout + refused.stderr


def test_a_folder_that_a_node_does_not_share_is_named_at_once(
    bases: Bases, reference: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The second node has a mount namespace of its own, with an empty folder in place of the shared one."""
    if os.getuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs root and mount namespaces")
    ray = tmp_path_factory.mktemp("ray")
    shared = tmp_path_factory.mktemp("shared")
    port = free_port()
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={free_port()}"]
    head += [f"--temp-dir={ray}", f"--ray-client-server-port={free_port()}", "--num-cpus=1", "--disable-usage-stats"]
    other = f"ray start --address=127.0.0.1:{port} --num-cpus=1 --disable-usage-stats"
    other += f" --dashboard-agent-listen-port={free_port()}"
    path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    try:
        begun = run("ray", "start", *head, f"--dashboard-agent-listen-port={free_port()}")
        assert begun.returncode == 0, begun.stdout + begun.stderr
        hidden = f"mount -t tmpfs none {shared} && {other}"
        joined = subprocess.run(
            ["unshare", "-m", "sh", "-c", hidden], env={**os.environ, **path}, capture_output=True, text=True
        )
        assert joined.returncode == 0, joined.stdout + joined.stderr
        (shared / "data.jsonl").write_bytes((reference / "reviews.jsonl").read_bytes())
        address = f"ray.address=127.0.0.1:{port}"
        for data, storage, message in (
            (reference / "reviews.jsonl", shared, f"`storage_path`: {shared} is not the same folder on node"),
            (shared / "data.jsonl", tmp_path, f"{shared}/data.jsonl is not there on node"),
        ):
            for command in ("train", "tune"):
                words = settings(bases, str(data), storage, "never")
                refused = run(f"jobs/{command}.py", *words, address, cwd=ROOT)
                assert (refused.returncode, message in refused.stderr) == (2, True), refused.stdout + refused.stderr
        assert not list((shared / "never").glob(".reach*"))
    finally:
        end_processes_of(ray)


def test_a_run_goes_on_within_its_epoch_when_a_node_is_taken_away(
    bases: Bases, tmp_path: Path, reviews: list[dict[str, str]]
) -> None:
    """One epoch of 2,400 steps on one of two nodes, which is drained as a spot node is, and then ends."""
    data = tmp_path / "many.jsonl"
    rows = [{**row, "text": f"{row['text']} {i}"} for i in range(24) for row in reviews[:125]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = settings(bases, str(data), tmp_path, "spot")
    words += ["train.num_train_epochs=1", "train.per_device_train_batch_size=1", "train.floor=false"]
    with simulated(3, head_cpus=0) as cluster:
        line = command(["jobs/train.py", *words, f"ray.address={cluster.address}"])
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
            assert job.stdout
            said = [next(line for line in job.stdout if line.startswith("trainable"))]
            (node,) = cluster.actors("RayTrainWorker")
            drained = run(
                "ray", "drain-node", f"--address={cluster.address}", f"--node-id={node}", "--reason-message=spot",
                "--reason=DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds=25",
            )  # fmt: skip
            assert drained.returncode == 0, drained.stderr
            for line in job.stdout:
                said.append(line)
                if line.startswith("saved"):
                    time.sleep(6)  # Ray Train looks for a worker's reports every 2 s
                    cluster.take_away(node)
            assert job.wait(200) == 0, "".join(said)
    (saved,) = [re.search(r"step (\d+) \(a node is about to be taken away\)", line) for line in said if "saved" in line]
    assert saved
    steps = [json.loads(line) for line in (tmp_path / "spot" / "history.jsonl").read_text().splitlines()]
    losses = [event["step"] for event in steps if event["kind"] == "loss"]
    again = next(i for i, (before, after) in enumerate(pairwise(losses)) if after <= before)
    assert int(saved[1]) < losses[again + 1] <= int(saved[1]) + 50, "it goes on from there"
    assert losses[-1] == 2400
