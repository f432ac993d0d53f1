"""A cluster with other people on it, and one that grows: three nodes of this machine, in a process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# the head has no GPU; another job holds all of one of the two nodes that have one
SCRIPT = """
import json, os, sys, threading, time
import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster as Nodes
from raylora.cluster.events.stream import collect
from raylora.cluster.placement import check_room, need_of, one_worker, plan_workers, tell_bound
from raylora.cluster.resolve import decide_bf16, resolve_on_cluster
from raylora.cluster.session import connect, look, on_node
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.tune.pool import plan_pool
from raylora.config import Job
from raylora.model.base.find import resolve

said, found = [], {}
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    nodes.add_node(num_cpus=1, num_gpus=1)
nodes.wait_for_nodes()
job = Job().replace({"model.base_model": sys.argv[1], "ray.address": nodes.address})

@ray.remote(num_cpus=1, num_gpus=1)
class Neighbour:
    def here(self):
        return True

with connect(job.ray) as cluster:
    neighbour = Neighbour.remote()
    ray.get(neighbour.here.remote())
    cluster = look(cluster)
    plan = plan_workers(job.ray, cluster)
    tell_bound(plan.resources_per_worker, plan.most, cluster, said.append)
    found["workers"] = plan.most
    found["pool"] = plan_pool(job, cluster, plan_workers(one_worker(job.ray), cluster), 40, 25).count
    start = time.monotonic()
    found["bf16"] = decide_bf16(job, plan, [resolve(job.model)]).train.bf16
    found["bf16_s"] = time.monotonic() - start
    here = ray.get_runtime_context().get_node_id()
    found["queues"] = []
    for _ in range(6):
        with collect(lambda events: None, said.append) as log:
            ray.get(log({"kind": "loss", "step": 0}))
            (queue,) = [e for e in actors().values() if e["ActorClassName"] == "EventQueue" and e["State"] == "ALIVE"]
            found["queues"].append(queue["Address"]["NodeID"] == here)  # of a dead one nothing is known

    taken = []
    with collect(taken.extend, said.append) as log:
        ray.get(log({"kind": "loss", "step": 1}))
        time.sleep(1)
        (queue,) = [e for e in actors().values() if e["ActorClassName"] == "EventQueue" and e["State"] == "ALIVE"]
        os.kill(queue["Pid"], 9)
        ray.get(log({"kind": "loss", "step": 2}))
    found["events"] = [event["step"] for event in taken]

    rare = job.replace({
        "ray.resources_per_worker": {"CPU": 1, "rare": 1}, "ray.scale_up_timeout_s": 60, "ray.use_gpu": False,
        "train.bf16": False, "storage_path": sys.argv[2], "run_name": "rare",
    })

    def wait():
        with resolve_on_cluster(rare, {}, RunFolder(rare), [], said.append) as resolved:
            found["nodes"] = [len(cluster.nodes), len(resolved.cluster.nodes)]

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(2)
    nodes.add_node(num_cpus=1, resources={"rare": 1})  # takes signals: in the main thread alone
    waiting.join()
print(json.dumps({**found, "said": said}), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(bases: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bases("bert")), str(tmp_path_factory.mktemp("runs"))],
        capture_output=True,
        text=True,
        timeout=280,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_auto_takes_the_gpus_that_are_free_and_says_so(found: dict[str, Any]) -> None:
    assert (found["workers"], found["pool"]) == (1, 1)
    assert found["said"][0] == "workers    1, where the cluster has room for 2: 2 of 3 CPU, 1 of 2 GPU are free"


def test_precision_is_asked_of_a_node_that_is_in_full_use_without_waiting_for_it(found: dict[str, Any]) -> None:
    assert found["bf16"] is False, "these GPUs are on paper only"
    assert found["bf16_s"] < 60


def test_what_a_job_needs_one_of_is_where_its_driver_is(found: dict[str, Any]) -> None:
    assert found["queues"] == [True] * 6


def test_events_go_on_after_their_queue_was_killed(found: dict[str, Any]) -> None:
    assert found["events"] == [1, 2]


def test_a_node_that_came_for_the_workers_is_one_of_those_that_are_checked(found: dict[str, Any]) -> None:
    assert found["nodes"] == [3, 4]


# a sweep on two workers of a node; its broker is killed, and a node comes, while it runs
SWEEP = """
import os, sys, threading, time
from ray._private.state import actors
from ray.cluster_utils import Cluster as Nodes
from raylora.cluster.data.sources import list_sources
from raylora.cluster.tune import growth
from raylora.cluster.tune.sweep import tune
from raylora.config import Job

growth.LOOK_S = 2.0
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
job = Job().replace({
    "model.base_model": sys.argv[1], "data.train": sys.argv[2], "storage_path": sys.argv[3], "run_name": "sweep",
    "ray.address": nodes.address, "train.num_train_epochs": 10, "train.bf16": False, "train.floor": False,
    "tune.num_samples": 12, "tune.pack": 2, "tune.scheduler": "none",
    "tune.space": {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}},
})
lines = []

def say(line):
    lines.append(line)
    print(line, flush=True)

def sweep():
    print("done", tune(job, list_sources(job.data), say).trials, flush=True)

sweeping = threading.Thread(target=sweep)
sweeping.start()
while not any(line.startswith("trial  ") for line in lines):
    time.sleep(0.2)
(broker,) = [e for e in actors().values() if e["ActorClassName"] == "Broker" and e["State"] == "ALIVE"]
os.kill(broker["Pid"], 9)
say("killed")
nodes.add_node(num_cpus=1)  # takes signals: in the main thread alone
say("added")
sweeping.join()
os._exit(0)
"""


def test_a_sweep_outlives_its_broker_and_grows_when_a_node_comes(
    bases: Callable[[str], Path], reviews_file: Callable[[int], str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, str(bases("bert")), reviews_file(60), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    assert "\ndone 12\n" in done.stdout, done.stdout + done.stderr[-4000:]
    assert "workers    1 -> 2, 4 trials at once" in done.stdout
    assert (tmp_path / "sweep" / "trials.csv").read_text().count(",finished,") == 12
