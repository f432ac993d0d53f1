"""The frozen states on Ray: one computation for all workers and trials, with the numbers of a run without it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from safetensors.torch import load_file
from tiny import largest_difference, save_base, tiny_job

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.frozen_states import with_frozen_states
from raylora.cluster.data.prepare import prepare
from raylora.cluster.data.sources import list_sources
from raylora.cluster.placement import WorkerPlan
from raylora.cluster.resolve import decide_bf16
from raylora.cluster.train.job import train
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError
from raylora.model.base.find import resolve
from raylora.model.base.load import load_tokenizer
from raylora.model.base.precision import resolve_bf16
from raylora.model.fit import fit as module
from raylora.model.fit.build import build
from raylora.model.fit.fit import fit
from raylora.model.fit.splits import Worker
from raylora.model.frozen_states import fill
from raylora.model.resolved import resolve_job
from raylora.model.tokens import tokenizer_spec

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

Write = Callable[[int], str]


@pytest.fixture
def job(reviews_file: Write, tmp_path: Path) -> Job:
    """A BERT of three layers, the top one adapted; 60 of 94 rows, so that blocks hold rows of no split."""
    save_base("bert", tmp_path / "base", num_hidden_layers=3)
    job = tiny_job(tmp_path / "base", lora__layers_to_transform=[2], storage_path=str(tmp_path / "runs"))
    data = {"data.train": reviews_file(94), "data.test": reviews_file(31), "data.max_samples": 60}
    return job.replace({"train.bf16": False, "ray.num_workers": 2} | data)


def prepared(job: Job) -> Dataset:
    spec = tokenizer_spec(load_tokenizer(job.model.base_model), job.data.max_length)
    return prepare(job, list_sources(job.data), spec)


def test_tasks_compute_what_one_process_computes_and_workers_read_it_where_it_is(job: Job) -> None:
    resolved = resolve_job(job)
    whole = prepared(job)
    (block,) = ray.get(whole.blocks)
    dataset = with_frozen_states(replace(whole, blocks=[ray.put(block[:50]), ray.put(block[50:])]), resolved)
    assert dataset.frozen_depth == 2
    splits = dataset.load()
    assert splits.test is not None
    model = build(resolved, splits.labels, 0).get_base_model()
    tables = [splits.train, splits.validation, splits.test]
    for table, own in zip(tables, fill(tables, splits.tokenizer, model, 2, 16), strict=True):
        assert table.frozen_states and own.frozen_states
        for given, expected in zip(table.frozen_states, own.frozen_states, strict=True):
            assert not given.flags.writeable, "shared memory of the node"
            np.testing.assert_allclose(given, expected, atol=2e-5)
    assert with_frozen_states(whole, resolved.replace({"lora.layers_to_transform": [0, 2]})) is whole
    assert with_frozen_states(whole, resolved.replace({"train.base_dropout": True})) is whole


def test_two_workers_with_frozen_states_reach_the_adapter_of_one_process_without(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    result = train(job.replace({"run_name": "two"}), list_sources(job.data), lines.append)
    assert "frozen     layers below 2 are constant: computed once for every row" in lines
    monkeypatch.setattr(module, "constant_layers", lambda model: 0)
    adapter = Path(job.storage_path) / "alone"
    splits = prepared(job).load()
    alone = fit(resolve_job(job), splits, worker=Worker(global_batch_size=16), save_to=adapter)
    weights = [load_file(f"{folder}/adapter_model.safetensors") for folder in (result.adapter_uri, adapter)]
    assert largest_difference(*weights) < 1e-5
    assert result.validation.loss == pytest.approx(alone.validation.loss, abs=1e-5)
    assert result.validation.accuracy == alone.validation.accuracy


def test_bf16_is_decided_for_all_nodes_and_kept_by_a_run_that_goes_on(job: Job) -> None:
    """The saved run was decided for bf16 on other nodes; the user still says auto."""
    job = job.replace({"train.bf16": "auto", "run_name": "half"})
    plan = WorkerPlan(2, False, {"CPU": 1.0}, 1)
    assert decide_bf16(job, plan, [resolve(job.model)]).train.bf16 is resolve_bf16(job.train, use_gpu=False)
    plain = resolve(job.model)
    (folder := Path(job.storage_path) / "v1").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "deberta"}')
    deberta = replace(plain, path=str(folder))
    assert decide_bf16(job, plan, [plain, deberta]).train.bf16 is False, "transformers' code cannot"
    with pytest.raises(ConfigError, match="cannot run in bfloat16"):
        decide_bf16(job.replace({"train.bf16": True}), plan, [deberta])
    folder = Path(job.storage_path) / "half"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(jobfile.dump(job.replace({"train.bf16": True})))
    result = train(job, list_sources(job.data), lambda line: None)
    assert jobfile.read([str(folder / "config.yaml")], {}).train.bf16 is True
    assert json.loads((folder / "metrics.json").read_text())["dtype"] == "bfloat16"
    assert {str(t.dtype) for t in load_file(f"{result.adapter_uri}/adapter_model.safetensors").values()} == {
        "torch.float32"
    }
