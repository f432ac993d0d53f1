"""Adapters on every layout: attach, step, save, reload, also without raylora."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import LAYOUTS, demo_splits, make_adapter, save_base, tiny_job

import raylora
from raylora.config import Job
from raylora.errors import ConfigError, DataError, ModelError, RayLoraError
from raylora.model.base.find import resolve
from raylora.model.base.load import empty_base, read_config
from raylora.model.collator import Collator
from raylora.model.fit.build import build, check_fits
from raylora.model.fit.fit import fit
from raylora.model.lora.attach import lora_config, target_modules
from raylora.model.lora.manifest import read_manifest, served_base
from raylora.model.resolved import resolve_job
from raylora.model.serving.base import ServedBase
from raylora.model.tokens import encode, table_of
from raylora.tasks.functions import softmax

Bases = Callable[[str], Path]

EXPECTED_TARGETS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "xlm-roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "modernbert": ["Wqkv"],
    "deberta-v2": ["query_proj", "value_proj"],
    "llama": ["q_proj", "v_proj"],
}

PLAIN = """
import json, sys
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
labels = json.load(open(folder + "/raylora.json"))["labels"]
id2label = dict(enumerate(labels))
model = AutoPeftModelForSequenceClassification.from_pretrained(
    folder, num_labels=len(labels), id2label=id2label, label2id={v: k for k, v in id2label.items()}
).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
assert "raylora" not in sys.modules
print(json.dumps({"logits": logits, "id2label": model.config.id2label}))
"""


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_layout_attaches_trains_a_step_saves_and_reloads(kind: str, bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases(kind))
    base = resolve(job.model)
    assert target_modules(job.lora, empty_base(base, read_config(base, ("a", "b"), True))) == EXPECTED_TARGETS[kind]
    splits = demo_splits(job, bases(kind), 40)
    fitted = fit(resolve_job(job), splits, save_to=tmp_path / "adapter")
    assert fitted.steps == 4
    texts = ["Works well.", "It broke after a week and nobody answers."]
    reloaded = raylora.load(tmp_path / "adapter")
    fitted.model.eval()
    tokenizer = reloaded.tokenizer_spec
    from raylora.model.collator import Collator
    from raylora.model.tokens import encode, table_of

    table = table_of(encode(texts, tokenizer))
    batch = Collator(table, tokenizer)(np.arange(2))
    batch.pop("labels")
    with torch.inference_mode():
        expected = fitted.model(**batch).logits.numpy()
    np.testing.assert_allclose(reloaded.logits(texts), expected, atol=1e-5)


def test_only_lora_matrices_and_the_head_move(bases: Bases) -> None:
    job = tiny_job(bases("bert"))
    original = load_file(str(bases("bert") / "model.safetensors"))
    fitted = fit(resolve_job(job), demo_splits(job, bases("bert"), 40))
    now = dict(fitted.model.get_base_model().named_parameters())
    compared = 0
    for name, weights in original.items():
        found = next(p for n, p in now.items() if n.replace(".base_layer", "") == f"bert.{name}")
        assert torch.equal(found, weights), name
        compared += 1
    assert compared == len(original) > 30
    trainable = {n for n, p in fitted.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in trainable)


def test_a_saved_adapter_loads_in_plain_peft_and_predicts_the_same(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"))
    splits = demo_splits(job, bases("bert"), 40)
    fit(resolve_job(job), splits, save_to=tmp_path / "adapter")
    texts = ["Works well.", "It broke after a week and nobody answers."]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "adapter"), json.dumps(texts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout.splitlines()[-1])
    ours = raylora.load(tmp_path / "adapter")
    np.testing.assert_allclose(plain["logits"], ours.logits(texts), atol=1e-5)
    assert plain["id2label"] == {"0": "negative", "1": "positive"}
    assert ours.model.config.id2label == {0: "negative", 1: "positive"}


def test_three_labels_survive_saving(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"))
    splits = demo_splits(job, bases("bert"), 40)
    splits = type(splits)(splits.train, splits.validation, None, ("no", "ünsure", "yes"), splits.tokenizer, {})
    fit(resolve_job(job), splits, save_to=tmp_path / "adapter")
    prediction = raylora.load(tmp_path / "adapter").predict(["Fine."])[0]
    assert set(prediction.scores) == {"no", "ünsure", "yes"}
    assert sum(prediction.scores.values()) == pytest.approx(1)
    assert read_manifest(tmp_path / "adapter").labels == ("no", "ünsure", "yes")


def test_predictions_equal_the_trainers_own_logits(bases: Bases, tmp_path: Path) -> None:
    from raylora.model.collator import Collator
    from raylora.model.fit.trainer import PlanTrainer

    kept: list[PlanTrainer] = []
    original = PlanTrainer.logits

    def keep(self: PlanTrainer, collator: Collator) -> np.ndarray:
        kept.append(self)
        return original(self, collator)

    job = tiny_job(bases("bert"))
    splits = demo_splits(job, bases("bert"), 60)
    PlanTrainer.logits = keep
    try:
        fit(resolve_job(job), splits, save_to=tmp_path / "adapter")
    finally:
        PlanTrainer.logits = original
    expected = kept[0].logits(Collator(splits.validation, splits.tokenizer))
    reviews = [json.loads(line)["text"] for line in raylora.demo.REVIEWS.read_text().splitlines()[:60]]
    texts = [reviews[row] for row in splits.validation.rows]
    predictor = raylora.load(tmp_path / "adapter")
    np.testing.assert_allclose(predictor.logits(texts), expected, atol=1e-5)
    found = predictor.predict(texts)
    for i, row in enumerate(softmax(expected.astype(np.float64))):
        assert found[i].label == predictor.labels[int(row.argmax())]
        assert found[i].score == pytest.approx(row.max(), abs=1e-5)


def test_a_rank_above_the_hidden_size_is_refused(bases: Bases) -> None:
    job = tiny_job(bases("bert"), lora__r=33)
    with pytest.raises(ConfigError, match=r"`lora.r` must be at most 32 .* got 33"):
        check_fits(job, resolve(job.model))


def test_an_unknown_target_module_lists_the_candidates(bases: Bases) -> None:
    job = tiny_job(bases("distilbert"), lora__target_modules=["query"])
    with pytest.raises(ConfigError, match=r"no module 'query'.*k_lin, lin1, lin2, out_lin, q_lin, v_lin"):
        check_fits(job, resolve(job.model))


@pytest.mark.parametrize(
    ("kind", "most"),
    [("bert", 512), ("roberta", 159), ("distilbert", 512), ("deberta-v2", 512), ("gpt2", 1024)],
)
def test_rows_longer_than_the_bases_positions_are_refused(kind: str, most: int, bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases(kind), data__max_length=most)
    check_fits(job, resolve(job.model))
    with pytest.raises(ConfigError, match=rf"`data.max_length` must be at most {most} \(positions of {kind}\), got"):
        check_fits(job.replace({"data.max_length": most + 1}), resolve(job.model))
    predictor = raylora.load(make_adapter(bases(kind), tmp_path / "adapter", ("a", "b"), data__max_length=most))
    assert np.isfinite(predictor.logits(["so it is " * most])).all(), "the last position is there"


@pytest.mark.parametrize("kind", ["llama", "modernbert"])
def test_positions_that_are_computed_have_no_end(kind: str, bases: Bases) -> None:
    job = tiny_job(bases(kind), data__max_length=100_000)
    check_fits(job, resolve(job.model))


@pytest.mark.parametrize("targets", ["auto", "all-linear"])
def test_gpt2_whose_layers_are_the_other_way_round_trains_without_a_warning(
    targets: str, bases: Bases, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    job = tiny_job(bases("gpt2"), lora__target_modules=targets)
    fitted = fit(resolve_job(job), demo_splits(job, bases("gpt2"), 40), save_to=tmp_path / "adapter")
    assert not [warning for warning in recwarn if "fan_in_fan_out" in str(warning.message)]
    names = {name.partition(".lora_A")[0] for name, _ in fitted.model.named_parameters() if ".lora_A" in name}
    assert {name.rpartition(".")[2] for name in names} == (
        {"c_attn"} if targets == "auto" else {"c_attn", "c_proj", "c_fc"}
    )
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    assert len(raylora.load(tmp_path / "adapter").predict(["Fine."])) == 1


def test_a_layer_beyond_the_last_is_refused(bases: Bases) -> None:
    job = tiny_job(bases("bert"), lora__layers_to_transform=[2])
    with pytest.raises(ConfigError, match=r"within 0..1, got \[2\]"):
        check_fits(job, resolve(job.model))


def test_top_layer_adapters_leave_lower_layers_alone(bases: Bases) -> None:
    job = tiny_job(bases("bert"), lora__layers_to_transform=[1])
    model = build(resolve_job(job), ("a", "b"), 0)
    adapted = {n for n, p in model.named_parameters() if p.requires_grad and "lora_" in n}
    assert adapted and all(".layer.1." in name for name in adapted)


def test_the_tutorials_distilbert_has_its_739586_trainable_parameters(tmp_path: Path) -> None:
    """DistilBERT-base as published (66 M, 30,522 tokens), random; the tutorial's own config file."""
    from raylora.config import file as jobfile

    root = Path(__file__).parents[2]
    save_base("distilbert", tmp_path / "db", vocab_size=30522, dim=768, n_layers=6, n_heads=12, hidden_dim=3072)
    job = jobfile.read([str(root / "jobs" / "distilbert.yaml"), f"model.base_model={tmp_path / 'db'}"], {})
    splits = demo_splits(job, tmp_path / "db", 30)
    assert len(splits.train) == 24
    assert len(splits.validation) == 6
    job = job.replace({"train.num_train_epochs": 1, "train.bf16": False})
    fitted = fit(resolve_job(job), splits, save_to=tmp_path / "adapter")
    assert (fitted.trainable, fitted.parameters) == (739_586, 67_694_596)
    assert round(100 * fitted.trainable / fitted.parameters, 4) == 1.0925
    original = load_file(str(tmp_path / "db" / "model.safetensors"))
    now = dict(fitted.model.get_base_model().named_parameters())
    for name, weights in original.items():
        found = next(p for n, p in now.items() if n.replace(".base_layer", "") == f"distilbert.{name}")
        assert torch.equal(found, weights), name
    base = resolve(job.model)
    config = lora_config(job.lora, empty_base(base, read_config(base, ("a", "b"), True)))
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (8, 32, 0.1, "none")
    assert config.target_modules == {"q_lin", "v_lin"}
    assert len(raylora.load(tmp_path / "adapter").predict(["Fine."])) == 1


@pytest.fixture
def moved(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose base was named by a relative path, seen from elsewhere; the base is in `base`, beside it."""
    shutil.copytree(bases("bert"), tmp_path / "work" / "base")
    monkeypatch.chdir(tmp_path / "work")
    job = tiny_job(Path("base"), model__base_model="base")
    fit(resolve_job(job), demo_splits(job, bases("bert"), 40), save_to=tmp_path / "runs" / "first" / "adapter")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def test_an_adapter_names_its_base_so_that_it_is_found_from_anywhere(moved: Path) -> None:
    folder = moved / "runs" / "first" / "adapter"
    assert read_manifest(folder).base_model == str(moved / "work" / "base")
    assert raylora.load(folder).predict(["Fine."])
    assert raylora.load("../runs/first").predict(["Fine."]) == raylora.load(f"file://{folder}").predict(["Fine."])


def test_a_base_that_was_moved_can_be_named_and_must_be_the_same(moved: Path, bases: Bases) -> None:
    folder = moved / "runs" / "first" / "adapter"
    before = raylora.load(folder).logits(["Fine."])
    (moved / "work" / "base").rename(moved / "moved")
    with pytest.raises(
        ModelError, match=r"(?s)work/base' was not found.*\n.*base_model=.*`raylora predict --base-model`"
    ):
        raylora.load(folder)
    np.testing.assert_array_equal(raylora.load(folder, base_model=moved / "moved").logits(["Fine."]), before)
    with pytest.raises(ModelError, match=r"has weights .*, but .* was trained on .* with weights"):
        raylora.load(folder, base_model=str(bases("roberta")))


def test_a_text_that_is_not_unicode_is_refused(moved: Path) -> None:
    predictor = raylora.load(moved / "runs" / "first")
    for text in ("caf\udce9", "\ud83d", ("a", "\udce9")):
        with pytest.raises(DataError, match="text 1 must be UTF-8, found "):
            predictor.predict(["Fine.", text])


def test_an_endpoint_runs_the_base_that_its_config_names(
    moved: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = moved / "runs" / "first" / "adapter"
    manifest = read_manifest(folder)
    assert served_base(manifest, Job().model).base_model == manifest.base_model
    (moved / "work" / "base").rename(moved / "moved")
    named = Job().replace({"model.base_model": str(moved / "moved"), "model.trust_remote_code": True})
    found = served_base(manifest, named.model)
    assert (found.base_model, found.trust_remote_code) == (str(moved / "moved"), True)
    assert ServedBase(found, torch.float32, torch.device("cpu")).load(folder).labels == ("negative", "positive")
    other = served_base(manifest, Job().replace({"model.base_model": str(bases("roberta"))}).model)
    with pytest.raises(ModelError, match="One endpoint serves one base model"):
        ServedBase(other, torch.float32, torch.device("cpu")).load(folder)


def test_an_endpoints_base_means_the_same_on_every_node(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    from raylora.cluster.serve.endpoint import serve_config

    monkeypatch.chdir(moved / "work")
    for name, whole in (("base", str(moved / "work" / "base")), ("org/base", "org/base")):
        job = Job().replace({"model.base_model": name, "serve.adapter_root": "x", "serve.merge": "off"})
        arguments = yaml.safe_load(serve_config(job))["applications"][0]["args"]
        assert (arguments["model"]["base_model"], arguments["serve"]["merge"]) == (whole, "off")


@pytest.mark.parametrize("address", ["x" * 300, "ftp9://x/y"])
def test_an_address_that_cannot_be_read_is_one_clear_error(address: str) -> None:
    with pytest.raises(RayLoraError, match=r"cannot be (read|used)|is not there"):
        raylora.load(address)


def test_an_adapter_on_object_storage_loads(moved: Path, s3_address: Callable[[str], str]) -> None:
    from raylora.cluster.storage.filesystem import locate

    locate(s3_address("bucket/runs/first")).copy_from(moved / "runs" / "first")
    assert raylora.load(s3_address("bucket/runs/first")).predict(["Fine."])
    with pytest.raises(ModelError, match=r"bucket/runs/second.* is not there"):
        raylora.load(s3_address("bucket/runs/second"))


def test_a_run_that_has_not_finished_is_told_so(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "cut"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    with pytest.raises(ModelError, match=r"runs/cut is a run that has not finished.*raylora runs show cut"):
        raylora.load(run)


def test_a_folder_that_is_no_adapter_says_what_is_missing(bases: Bases, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not there"):
        raylora.load(tmp_path / "nope")
    with pytest.raises(ModelError, match=r"raylora.json, adapter_config.json, adapter_model.safetensors missing"):
        raylora.load(tmp_path)


def test_a_broken_or_foreign_adapter_is_refused(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"))
    folder = tmp_path / "adapter"
    fit(resolve_job(job), demo_splits(job, bases("bert"), 40), save_to=folder)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[:500])
    with pytest.raises(ModelError, match=r"broken|does not load"):
        raylora.load(folder)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    manifest = json.loads((folder / "raylora.json").read_text())
    (folder / "raylora.json").write_text(json.dumps(manifest | {"base_digest": "0" * 64}))
    with pytest.raises(ModelError, match="was trained on"):
        raylora.load(folder)


def test_saving_replaces_an_adapter_and_nothing_else(bases: Bases, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    make_adapter(bases("bert"), folder, ("a", "b"))
    (folder / "old.txt").write_text("of the adapter before")
    make_adapter(bases("bert"), folder, ("a", "b", "c"))
    assert read_manifest(folder).labels == ("a", "b", "c") and not (folder / "old.txt").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("not a folder")
    for other in ("thesis", "file"):
        with pytest.raises(ModelError, match=r"not deleted|is a file"):
            make_adapter(bases("bert"), tmp_path / other, ("a", "b"))
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize("changes", [{}, {"lora__layers_to_transform": [1]}, {"train__bf16": True}])
def test_the_model_of_a_finished_fit_is_pefts_to_use(changes: dict[str, Any], bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"), lora__lora_dropout=0.3, **changes)
    model: Any = fit(resolve_job(job), demo_splits(job, bases("bert"), 40), save_to=tmp_path / "adapter").model
    assert not model.training, "as PeftModel.from_pretrained gives it"
    spec = raylora.load(tmp_path / "adapter").tokenizer_spec
    batch = Collator(table_of(encode(["Works well.", "It broke after a week."], spec)), spec)(np.arange(2))
    del batch["labels"]

    def logits(model: Any, **options: Any) -> np.ndarray:
        with torch.inference_mode():
            return model(**batch, **options).logits.float().numpy()

    close = {"atol": 0.05 if "train__bf16" in changes else 1e-5}
    own = logits(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():  # a copy is whole: it runs no module of the first
        copied.get_base_model().bert.embeddings.word_embeddings.weight.zero_()
    assert np.abs(logits(copied) - own).max() > 1e-3
    np.testing.assert_array_equal(logits(model), own)
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(logits(copied), own)
    model.load_adapter(str(make_adapter(bases("bert"), tmp_path / "second", ("a", "b"), seed=3)), "second")
    np.testing.assert_array_equal(logits(model), own)
    model.set_adapter("second")
    second = logits(model)
    assert np.abs(second - own).max() > 1e-3
    mixed = logits(model, adapter_names=["default", "second"])
    np.testing.assert_allclose(mixed, [own[0], second[1]], **close)
    model.set_adapter("default")
    with model.disable_adapter():
        assert np.abs(logits(model) - own).max() > 1e-3
    model.save_pretrained(str(tmp_path / "again"), selected_adapters=["default"])
    (merged,) = (copied.merge_and_unload(),)
    np.testing.assert_allclose(logits(merged), own, **close)
    saved = [load_file(str(tmp_path / name / "adapter_model.safetensors")) for name in ("adapter", "again")]
    assert saved[0].keys() == saved[1].keys() and all(torch.equal(saved[0][n], saved[1][n]) for n in saved[0])


def test_every_linear_layer_of_some_layers_alone(bases: Bases) -> None:
    """PEFT itself takes `layers_to_transform` only beside names."""
    job = tiny_job(bases("bert"), lora__target_modules="all-linear", lora__layers_to_transform=[1])
    model = build(resolve_job(job), ("a", "b"), 0)
    adapted = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert len(adapted) == 6, "query, key, value and three dense layers"
    assert all(".layer.1." in name for name in adapted)
