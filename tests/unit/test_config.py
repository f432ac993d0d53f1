"""The config refuses what cannot be, names every fault with its place, and never changes once built."""

import ast
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from raylora import errors
from raylora.config import Job, LoraSection, keys, parse
from raylora.config.renamed import RenamedKeyWarning
from raylora.errors import ConfigError
from raylora.metrics import METRICS
from raylora.tasks import TASKS
from raylora.tasks.parsed import as_text

PACKAGE = Path(errors.__file__).parent
ERRORS = [value for value in vars(errors).values() if isinstance(value, type)]


def faults(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(tree)
    return str(caught.value)


def test_no_keys_at_all_is_a_job_on_the_demo_data() -> None:
    assert parse({}) == Job()
    assert Job().data.train is None


def test_replace_sets_dotted_keys_and_leaves_the_old_job_alone() -> None:
    old = Job()
    new = old.replace({"lora.r": 16, "seed": 7})
    assert (new.lora.r, new.seed, new.lora.lora_alpha) == (16, 7, 32)
    assert (old.lora.r, old.seed) == (8, 42)


def test_replace_sets_one_resource_and_keeps_the_others() -> None:
    assert Job().replace({"ray.resources_per_worker.GPU": 0.5}).ray.resources_per_worker == {"CPU": 1, "GPU": 0.5}


@pytest.mark.parametrize("key", ["ray.resources_per_worker.GPU", "serve.ray_actor_options.num_gpus"])
def test_a_process_has_one_gpu_at_most(key: str) -> None:
    Job().replace({key: 1})
    with pytest.raises(ConfigError, match=r"one GPU; for more, raise `(num_workers|autoscaling_config)`"):
        Job().replace({key: 2})


def test_a_job_cannot_be_changed_in_place() -> None:
    job = Job()
    with pytest.raises(ValidationError, match="frozen"):
        job.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError, match="frozen"):
        job.lora.r = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_every_fault_is_named_at_once_with_its_path_and_the_value_found() -> None:
    message = faults({"seed": -1, "lora": {"r": "eight"}, "train": {"learning_rate": 0}, "data": {"max_length": 3}})
    assert message.splitlines()[0] == "4 faults in the config:"
    for line in (
        "  seed: must be greater than or equal to 0, found -1",
        "  lora.r: must be a valid integer, found 'eight'",
        "  train.learning_rate: must be greater than 0, found 0",
        "  data.max_length: must be greater than or equal to 4, found 3",
    ):
        assert line in message.splitlines()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lora.lora_alfa", "lora.lora_alpha"),
        ("lora.dropout", "lora.lora_dropout"),
        ("train.lerning_rate", "train.learning_rate"),
        ("learning_rate", "train.learning_rate"),
        ("train.max_length", "data.max_length"),
        ("trian.learning_rate", "train"),
        ("storage_pth", "storage_path"),
    ],
)
def test_an_unknown_key_is_told_the_key_that_was_meant(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key; did you mean `{meant}`\?"):
        Job().replace({key: 1})


def test_an_unknown_key_like_no_other_is_told_what_is_known_there() -> None:
    assert "lora.rank: unknown key; known here: r, lora_alpha," in faults({"lora": {"rank": 8}})
    assert "whatever: unknown key; known here: run_name, storage_path, seed, data," in faults({"whatever": 8})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", True),
        ("seed", "42"),
        ("seed", 2**32),
        ("run_name", "a/b"),
        ("run_name", ""),
        ("storage_path", ""),
        ("data.train", 3),
        ("data.validation_fraction", 0),
        ("data.validation_fraction", 1),
        ("data.validation_fraction", float("nan")),
        ("data.format", "xlsx"),
        ("data.labels", ["a", 1.5]),
        ("data.max_samples", 0),
        ("model.base_model", ""),
        ("lora.r", 8.0),
        ("lora.r", 0),
        ("lora.lora_dropout", 1),
        ("lora.bias", "some"),
        ("train.learning_rate", float("inf")),
        ("train.learning_rate", "5e-4"),
        ("train.bf16", "yes"),
        ("ray.num_workers", 0),
        ("ray.num_workers", "many"),
        ("ray.num_workers", [1]),
        ("ray.max_failures", -2),
        ("ray.scale_up_timeout_s", -1),
        ("lora", None),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_shown(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Job().replace({key: value})
    shown = value[-1] if isinstance(value, list) and key == "data.labels" else value
    assert f"  {key}: " in str(caught.value)
    assert str(caught.value).endswith(f", found {shown!r}")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("data.labels", ["a", "a"], r"`labels` must name at least two labels, each once, found \['a', 'a'\]"),
        ("data.labels", ["a"], r"`labels` must name at least two labels"),
        ("lora.target_modules", [], "`target_modules` must name at least one module, found an empty list"),
        ("lora.target_modules", "q_lin", "`target_modules` must be auto, all-linear or a list, found 'q_lin'"),
        ("ray.num_workers", [4, 2], r"`num_workers` must be \[min, max\], found \[4, 2\]"),
        ("lora.r.deep", 1, "`lora.r.deep`: `lora.r` is a value, not a section"),
    ],
)
def test_a_combination_that_cannot_be_is_refused(key: str, value: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Job().replace({key: value})


def test_every_kind_of_value_a_key_allows_is_taken() -> None:
    for workers in ("auto", 1, [1, 4], [2, 2]):
        assert Job().replace({"ray.num_workers": workers}).ray.num_workers == workers
    for targets in ("auto", "all-linear", ["query", "value"]):
        assert Job().replace({"lora.target_modules": targets}).lora.target_modules == targets
    for source in (None, "a.csv", ["a.csv", "b.csv"]):
        assert Job().replace({"data.train": source}).data.train == source
    assert Job().replace({"ray.max_failures": -1, "train.learning_rate": 1}).train.learning_rate == 1


def test_each_problem_type_takes_its_own_metrics_and_no_others() -> None:
    for problem_type, task in TASKS.items():
        job = Job().replace({"data.problem_type": problem_type})
        assert job.metric == task.metrics[0]
        assert {job.replace({"train.metric_for_best_model": name}).metric for name in task.metrics} == {*task.metrics}
        for name in set(METRICS) - {*task.metrics}:
            with pytest.raises(ConfigError, match=f"must be a metric of {problem_type}.*found {name}"):
                job.replace({"train.metric_for_best_model": name})
            with pytest.raises(ConfigError, match=f"`tune.metric` must be a metric of {problem_type}"):
                job.replace({"tune.metric": name})
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        Job().replace({"train.metric_for_best_model": "acuracy"})


@pytest.mark.parametrize(
    ("metric", "mode", "right"),
    [("mse", "max", "min"), ("ece", "max", "min"), ("loss", "max", "min"), (None, "min", "max")],
)
def test_the_mode_of_a_sweep_is_its_metrics_own_wherever_that_is_named(
    metric: str | None, mode: str, right: str
) -> None:
    for key in ("train.metric_for_best_model", "tune.metric") if metric else ("train.metric_for_best_model",):
        with pytest.raises(ConfigError, match=rf"`(tune\.)?mode` must be {right} for \w+.*, found {mode}"):
            Job().replace({key: metric, "tune.mode": mode})
        assert Job().replace({key: metric, "tune.mode": right}).tune.mode == right


def test_losses_and_weights_are_of_the_problem_type() -> None:
    numbers = Job().replace({"data.problem_type": "regression", "train.loss": "huber"})
    with pytest.raises(ConfigError, match=r"`train\.loss` must be one of mse, huber"):
        numbers.replace({"train.loss": "focal"})
    for key, value in (("train.class_weights", "balanced"), ("train.label_smoothing_factor", 0.1)):
        with pytest.raises(ConfigError, match=f"`{key}` is of labels"):
            numbers.replace({key: value})


@pytest.mark.parametrize("one", [1, 1.0, np.int64(1), True, "1"])
def test_a_label_in_python_is_the_text_that_a_file_with_this_value_holds(one: Any) -> None:
    settings = {"data.labels": [0, one], "data.positive_label": one, "train.class_weights": {0: 1, one: 5}}
    job = Job().replace(settings)
    text = as_text(one.item() if hasattr(one, "item") else one, "label").form
    assert (job.data.labels, job.data.positive_label) == (["0", text], text)
    assert job.train.class_weights == {"0": 1.0, text: 5.0}
    assert parse(job.model_dump()) == job


def test_a_column_in_python_may_be_its_position() -> None:
    job = Job().replace({"data.text_column": 1, "data.label_column": 0, "data.columns": [2024, "stars"]})
    assert (job.data.text_column, job.data.label_column, job.data.columns) == ("1", "0", ["2024", "stars"])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("data.labels", [0.5, 1.5], "data.labels: must be a text or a whole number, found 0.5"),
        ("data.labels", [None, "a"], "data.labels: must be a text or a whole number, found None"),
        ("data.positive_label", [1], r"data.positive_label: must be a text or a whole number, found \[1\]"),
        (
            "train.class_weights",
            {0.5: 1},
            "train.class_weights: must be 'balanced', or must be a text or a whole number, found 0.5",
        ),
        ("train.class_weights", {1: 2, "1": 3}, "train.class_weights: must name each label once"),
        ("data.labels", [1, "1"], "must name at least two labels, each once"),
    ],
)
def test_what_no_file_has_as_a_label_is_refused_once(key: str, value: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        Job().replace({key: value})
    assert str(caught.value).count("must be a text") <= 1


def test_keys_lists_every_dotted_key_once_without_sections() -> None:
    found = keys()
    assert {"run_name", "data.train", "lora.r", "ray.scale_up_timeout_s"} <= found.keys()
    assert not {"data", "model", "lora", "train", "ray"} & found.keys()
    assert found["lora.r"] == "rank"
    assert [key for key in found if key.startswith("lora.")] == [f"lora.{name}" for name in LoraSection.model_fields]
    for key, value in Job().model_dump(exclude={"data", "model", "lora", "train", "ray"}).items():
        assert Job().replace({key: value}) == Job()


def test_no_class_carries_a_name_of_ray_train_peft_or_transformers() -> None:
    import peft
    import ray.train
    import transformers

    files = [file for file in PACKAGE.rglob("*.py") if "bench" not in file.parts]
    nodes = [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]
    ours = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    assert {"Job", "LoraSection", "RayLoraError"} <= ours
    assert not ours & {*dir(ray.train), *dir(peft), *dir(transformers)}


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_survives_pickling_whole(error: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error("what must hold, what was found")))
    assert type(copy) is error
    assert str(copy) == "what must hold, what was found"


def test_a_job_survives_pickling() -> None:
    job = Job().replace({"lora.r": 3, "data.labels": ["no", "yes"]})
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_renamed_key_works_with_a_warning() -> None:
    with pytest.warns(RenamedKeyWarning, match=r"`train.prefix_cache_bytes` is `train.frozen_states_cache_bytes` now"):
        assert Job().replace({"train.prefix_cache_bytes": 7}).train.frozen_states_cache_bytes == 7
    with pytest.warns(RenamedKeyWarning):
        assert parse({"train": {"prefix_cache_bytes": 7}}).train.frozen_states_cache_bytes == 7
    both = {"prefix_cache_bytes": 7, "frozen_states_cache_bytes": 8}
    with pytest.raises(ConfigError, match=r"train\.prefix_cache_bytes: unknown key"):
        parse({"train": both})
