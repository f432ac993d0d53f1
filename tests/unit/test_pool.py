"""How a sweep is spread over a cluster, worked out by hand; how a trial's progress adds up. No Ray is started."""

from dataclasses import replace

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from raylora.cluster.placement import one_worker, plan_workers, tell_bound
from raylora.cluster.session import Cluster
from raylora.cluster.tune.growth import more_workers, room
from raylora.cluster.tune.nested import is_nested, plan_nested
from raylora.cluster.tune.policy import alone_because, pack_slots
from raylora.cluster.tune.pool import PoolPlan, is_failure, is_too_large, leave_for_trainables, plan_pool
from raylora.cluster.tune.trial_progress import FILE, TrialProgress, is_whole, read_progress
from raylora.config import Job
from raylora.errors import ClusterError, TrainingError
from raylora.metrics import Scores
from raylora.model.limits import check_limits


def cluster(cpus: int, gpus: int = 0, own: bool = False) -> Cluster:
    return Cluster(own, "10.0.0.1:6379", ({"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}),))


def nodes(*cpus: float) -> Cluster:
    return Cluster(False, "10.0.0.1:6379", tuple({"CPU": each} for each in cpus))


def pool(job: Job, cluster: Cluster, total: int, width: float) -> PoolPlan:
    """As a sweep plans it."""
    return plan_pool(job, cluster, plan_workers(one_worker(job.ray), cluster), total, width)


def test_a_worker_is_placed_on_one_node_not_on_two_halves() -> None:
    assert nodes(1, 1, 1, 1).slots({"CPU": 2}) == 0
    assert nodes(3, 5, 0).slots({"CPU": 2}) == 3
    assert nodes(1).slots({"CPU": 0.1}) == 10
    assert nodes(4, 4).slots({"CPU": 1, "GPU": 1}) == 0
    two = Job().replace({"ray.num_workers": 2, "ray.resources_per_worker": {"CPU": 2}})
    with pytest.raises(ClusterError, match=r"finds 0 slots: each must be on one node, and the nodes have 1 CPU; 1"):
        plan_workers(two.ray, nodes(1, 1, 1, 1))
    with pytest.raises(ClusterError, match=r"needs 4 CPU; the cluster \(.*2 nodes, 3 CPUs\) has 3"):
        plan_workers(two.ray, nodes(1, 2))
    assert plan_workers(two.ray, nodes(2, 3)).fewest == 2
    halves = Job().replace({"ray.resources_per_worker": {"CPU": 3}})
    assert pool(halves, nodes(4, 4, 4), total=9, width=25).count == 3  # not 12 // 3
    nested = Job().replace({"ray.num_workers": 2, "ray.resources_per_worker": {"CPU": 3}})
    assert plan_nested(nested, nodes(4, 4, 4), total=9).concurrent == 1


def test_a_laptop_has_one_worker_of_all_cores_that_packs() -> None:
    plan = pool(Job(), cluster(8, own=True), total=20, width=25)
    assert (plan.count, plan.workers.threads, plan.concurrent) == (1, 8, 8)
    assert str(plan) == "1 worker of 8 threads"


def test_a_cluster_has_a_worker_per_share_and_no_more_than_trials() -> None:
    plan = pool(Job(), cluster(64), total=200, width=25)
    assert (plan.count, plan.concurrent) == (64, 200)
    few = pool(Job(), cluster(64), total=5, width=25)
    assert (few.count, few.concurrent) == (5, 5)


def test_a_gpu_holds_one_worker_and_more_trials() -> None:
    plan = pool(Job(), cluster(16, gpus=2), total=100, width=25)
    assert (plan.count, plan.concurrent, str(plan)) == (2, 64, "2 workers of a GPU")


def busy(cpus: int, gpus: int, free_cpus: float, free_gpus: float) -> Cluster:
    return replace(cluster(cpus, gpus), free={"CPU": free_cpus, "GPU": free_gpus})


def test_auto_takes_what_is_free_of_a_cluster_and_one_worker_waits_where_nothing_is() -> None:
    assert plan_workers(Job().ray, cluster(16, gpus=8)).most == 8
    assert plan_workers(Job().ray, busy(16, 8, 16, 3)).most == 3
    assert plan_workers(Job().ray, busy(16, 8, 2, 3)).most == 2, "each wants a CPU, too"
    assert plan_workers(Job().ray, busy(16, 8, 16, 0)).most == 1
    assert plan_workers(Job().replace({"ray.num_workers": 8}).ray, busy(16, 8, 16, 3)).most == 8
    assert plan_workers(Job().ray, replace(busy(16, 8, 16, 3), own=True)).most == 8, "nobody else is there"
    assert pool(Job(), busy(64, 0, 5, 0), total=200, width=25).count == 5
    assert plan_nested(Job().replace({"ray.num_workers": 2}), busy(64, 0, 5, 0), total=9).concurrent == 2


def test_where_auto_takes_less_than_all_is_said_with_the_reason() -> None:
    said: list[str] = []
    each = {"CPU": 1.0, "GPU": 1.0}
    tell_bound(each, 3, busy(16, 8, 16, 3), said.append)
    assert said == ["workers    3, where the cluster has room for 8: 16 of 16 CPU, 3 of 8 GPU are free"]
    tell_bound(each, 2, busy(16, 8, 16, 3), said.append)  # there are no more trials
    tell_bound(each, 8, busy(16, 8, 16, 8), said.append)
    assert len(said) == 1


def test_a_sweep_grows_by_what_is_free_and_what_has_a_trial_to_run() -> None:
    plan = pool(Job(), busy(64, 0, 2, 0), total=80, width=25)
    assert (plan.count, plan.each, plan.concurrent, plan.most) == (2, 8, 16, 80)
    assert [more_workers(plan, 2, free, left) for free, left in ((20, 80), (3, 80), (20, 33), (20, 16), (0, 80))] == [
        8,
        3,
        3,
        0,
        0,
    ]
    # of 64 CPUs others hold 52, 10 workers 9 of theirs, and 80 trials their thousandths
    assert room(plan, 10, 80, busy(64, 0, 64 - 52 - 9 - 0.08, 0)) == 2
    assert pool(Job(), cluster(8, own=True), total=80, width=25).most == 8, "one worker has all cores"
    wished = Job().replace({"tune.max_concurrent_trials": 5})
    assert pool(wished, busy(64, 0, 2, 0), total=80, width=25).most == 5


def test_a_cluster_that_grew_its_first_gpu_for_the_sweep_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.cluster.placement._wait_for_room", lambda *_: None)  # the autoscaler added a node
    job = Job().replace({"ray.use_gpu": True, "ray.scale_up_timeout_s": 60})
    plan = pool(job, cluster(4), total=100, width=25)
    assert (plan.count, str(plan)) == (1, "1 worker of a GPU")


def test_without_packing_a_worker_takes_one_trial_at_a_time() -> None:
    off = Job().replace({"tune.pack": "off"})
    assert pool(off, cluster(4), total=16, width=25).concurrent == 4
    assert alone_because(off) == "tune.pack: off"
    assert pack_slots(off, 25, use_gpu=False) == 1


def test_wished_numbers_win() -> None:
    wished = Job().replace({"tune.pack": 3, "tune.max_concurrent_trials": 5})
    plan = pool(wished, cluster(4, own=True), total=16, width=25)
    assert plan.concurrent == 5
    assert pack_slots(wished, 25, use_gpu=False) == 3


def test_a_pack_is_capped_by_the_tokens_of_a_step() -> None:
    long = Job().replace({"train.per_device_train_batch_size": 16})
    assert pack_slots(long, 25, use_gpu=False) == 8  # 16 x 25 = 400 tokens a trial
    assert pack_slots(long, 128, use_gpu=False) == 2  # 2,048 of 4,096
    assert pack_slots(long, 512, use_gpu=False) == 1


def test_what_a_pack_cannot_hold_runs_alone() -> None:
    assert alone_because(Job()) is None
    assert alone_because(Job().replace({"lora.use_dora": True})) == "lora.use_dora"
    assert pack_slots(Job().replace({"train.base_dropout": True}), 25, use_gpu=False) == 1


def test_a_worker_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ClusterError, match="needs 8 CPU"):
        pool(Job().replace({"ray.resources_per_worker": {"CPU": 8}}), cluster(4), total=2, width=25)


def test_room_is_left_for_the_trials_own_processes() -> None:
    plan = pool(Job(), cluster(4), total=16, width=25)
    assert leave_for_trainables(plan.workers).resources_per_worker == {"CPU": pytest.approx(0.9)}
    assert plan.workers.resources_per_worker == {"CPU": 1.0}


def test_a_preempted_worker_is_no_failure_and_one_that_filled_the_memory_packs_half_as_many() -> None:
    preempted, full, died = RayActorError(preempted=True), OutOfMemoryError("the node is full"), RayActorError()
    assert [is_failure(loss, held=4) for loss in (preempted, full, died)] == [False, False, True]
    assert [is_too_large(loss, held=4) for loss in (preempted, full, died)] == [False, True, False]
    assert is_failure(full, held=1) and not is_too_large(full, held=1), "it does not fit even alone"


def test_trials_of_several_workers_run_as_many_at_once_as_fit() -> None:
    two = Job().replace({"ray.num_workers": 2})
    assert is_nested(two) and not is_nested(Job()) and not is_nested(Job().replace({"ray.num_workers": 1}))
    assert plan_nested(two, cluster(2), total=9).concurrent == 1
    plan = plan_nested(two, cluster(9), total=9)
    assert plan.concurrent == 4
    assert plan.workers.resources_per_worker == {"CPU": pytest.approx(0.9)}
    with pytest.raises(ClusterError, match="needs 2 CPU"):
        plan_nested(two, cluster(1), total=9)


def epoch(number: float, loss: float) -> dict[str, float]:
    return {**Scores({"accuracy": 0.5, "f1": 0.5, "f1_macro": 0.4, "loss": loss}, 10).as_dict("eval_"), "epoch": number}


def test_a_trials_score_is_its_best_epochs_and_survives_a_checkpoint() -> None:
    progress = TrialProgress("loss", trainable_parameters=7, latency_ms=1.0)
    assert progress.add(epoch(1, 0.6), 2.0, packed=8)["score"] == 0.6
    second = progress.add(epoch(2, 0.4), 2.0, packed=8)
    assert (second["score"], second["best_epoch"], second["train_s"]) == (0.4, 2, 4.0)
    third = read_progress(progress.seal({"weights": b"x"})).add(epoch(3, 0.4), 1.0, packed=2)
    assert (third["score"], third["best_epoch"], third["best_loss"], third["train_s"]) == (0.4, 2, 0.4, 5.0)
    assert (third["trainable_parameters"], third["packed"]) == (7, 2)


def test_of_a_trials_equal_epochs_the_one_of_lower_loss_is_its_best() -> None:
    progress = TrialProgress("accuracy", trainable_parameters=7, latency_ms=1.0)
    bests = [progress.add(epoch(i, loss), 1.0, packed=1)["best_epoch"] for i, loss in enumerate((0.6, 0.4, 0.5), 1)]
    assert bests == [1, 2, 2]
    assert progress.last["best_f1_macro"] == 0.4


def test_a_checkpoint_cut_short_is_known_as_such() -> None:
    files = TrialProgress("loss", trainable_parameters=7, latency_ms=1.0).seal({"weights": b"xyz", "optimizer": b"z"})
    assert is_whole(files)
    for torn in ({}, {**files, "weights": b"xy"}, {**files, FILE: files[FILE][:-2]}):
        assert not is_whole(torn)
    for name in files:
        assert not is_whole({key: content for key, content in files.items() if key != name})


def test_a_trial_beyond_the_limits_is_refused_with_both_numbers() -> None:
    job = Job().replace({"tune.max_trainable_parameters": 1000, "tune.max_latency_ms": 5.0})
    check_limits(job, 1000, 5.0)
    with pytest.raises(TrainingError, match=r"1,001 trainable parameters; .* is 1,000"):
        check_limits(job, 1001, 5.0)
    with pytest.raises(TrainingError, match=r"5\.1 ms for a row; .* is 5"):
        check_limits(job, 1000, 5.1)
