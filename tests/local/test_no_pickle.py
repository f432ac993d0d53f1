"""Nothing that a user's path leads to is unpickled, and no code that comes with a model or adapter runs unasked."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from tiny import demo_splits, make_adapter, tiny_job

import raylora
from raylora.config import DataSection, ModelSection, yaml12
from raylora.errors import ConfigError, DataError, ModelError
from raylora.model.base.find import resolve
from raylora.model.base.load import load_base, load_tokenizer, read_config
from raylora.model.fit.fit import fit
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]
LABELS = ("a", "b")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "the trap sprang"


def copy(folder: Path, to: Path, *left_out: str) -> Path:
    to.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name not in left_out:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_trap_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()


def test_a_base_of_pickles_alone_is_refused_with_the_way_out(bases: Bases, tmp_path: Path, mark: Path) -> None:
    folder = copy(bases("bert"), tmp_path / "base", "model.safetensors")
    torch.save(Trap(mark), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors, but only pytorch_model\.bin, a pickle.*save_pretrained"):
        resolve(ModelSection(base_model=str(folder)))
    assert not mark.exists()


def test_pickles_beside_a_bases_safetensors_are_not_read(bases: Bases, tmp_path: Path, mark: Path) -> None:
    folder = copy(bases("bert"), tmp_path / "base")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save(Trap(mark), folder / name)
    base = resolve(ModelSection(base_model=str(folder)))
    loaded = load_base(base, read_config(base, LABELS, dropout=False), 0)
    own = load_file(bases("bert") / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(loaded.model.state_dict()["bert.embeddings.word_embeddings.weight"], own)
    assert not mark.exists()


def test_an_adapter_of_pickles_alone_is_refused(bases: Bases, tmp_path: Path, mark: Path) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "adapter", LABELS)
    (folder / "adapter_model.safetensors").unlink()
    torch.save(Trap(mark), folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors missing"):
        raylora.load(folder)
    assert not mark.exists()


def test_an_adapter_of_another_kind_is_refused(bases: Bases, tmp_path: Path) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "adapter", LABELS)
    edit_json(folder / "adapter_config.json", peft_type="XLORA", adapters={"0": "somebody/else"})
    with pytest.raises(ModelError, match="of PEFT's kind XLORA; raylora loads LORA"):
        raylora.load(folder)


def test_a_checkpoint_with_a_pickle_in_it_is_not_gone_on_from(bases: Bases, tmp_path: Path, mark: Path) -> None:
    job = tiny_job(bases("bert"), train__num_train_epochs=2)
    splits = demo_splits(job, bases("bert"), 24)
    kept: list[Path] = []

    def report(metrics: dict[str, object], folder: Path | None) -> None:
        assert folder
        kept.append(copy(folder, tmp_path / f"checkpoint{len(kept)}"))

    fit(resolve_job(job), splits, report=report)
    for name in ("optimizer.pt", "scheduler.pt"):
        spoilt = copy(kept[0], tmp_path / f"spoilt {name}")
        assert (spoilt / name).exists(), "Trainer writes it"
        torch.save(Trap(mark), spoilt / name)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            fit(resolve_job(job), splits, resume_from=spoilt)
    spoilt = copy(kept[0], tmp_path / "spoilt arguments")
    torch.save(Trap(mark), spoilt / "training_args.bin")  # written by Trainer, read by nobody
    fit(resolve_job(job), splits, resume_from=spoilt)
    assert not mark.exists()


def with_code(folder: Path, mark: Path, *autos: str) -> None:
    """Let a model folder bring code of its own, as `trust_remote_code` would run it."""
    (folder / "trap.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Trap: ...\n")
    edit_json(folder / "config.json", model_type="unheard-of", auto_map=dict.fromkeys(autos, "trap.Trap"))


def test_code_that_comes_with_a_base_runs_only_where_the_config_says_so(
    bases: Bases, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks a question that nobody hears"))
    folder = copy(bases("bert"), tmp_path / "base")
    with_code(folder, mark, "AutoConfig", "AutoModelForSequenceClassification")
    base = resolve(ModelSection(base_model=str(folder)))
    with pytest.raises(ModelError, match="trust_remote_code"):
        read_config(base, LABELS, dropout=False)
    assert not mark.exists()
    trusted = resolve(ModelSection(base_model=str(folder), trust_remote_code=True))
    with pytest.raises((ModelError, AttributeError)):  # the code runs, and then is no config at all
        read_config(trusted, LABELS, dropout=False)
    assert mark.exists()


def test_a_tokenizers_code_never_runs(
    bases: Bases, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks a question that nobody hears"))
    folder = copy(bases("bert"), tmp_path / "base")
    with_code(folder, mark, "AutoConfig")
    edit_json(
        folder / "tokenizer_config.json", tokenizer_class="Trap", auto_map={"AutoTokenizer": ["trap.Trap", "trap.Trap"]}
    )
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_tokenizer(str(folder))
    assert not mark.exists()


def test_an_adapters_card_cannot_switch_trust_on(bases: Bases, tmp_path: Path, mark: Path) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "adapter", LABELS)
    evil = copy(bases("bert"), tmp_path / "evil")
    with_code(evil, mark, "AutoConfig")
    edit_json(folder / "raylora.json", base_model=str(evil), config={"model": {"trust_remote_code": True}})
    with pytest.raises(ModelError, match="trust_remote_code"):
        raylora.load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_column_of_pickled_objects_is_refused(nested: bool, tmp_path: Path, mark: Path) -> None:
    """Ray Data registers such a type with Arrow, so that reading a value would unpickle it."""
    import ray.data  # noqa: F401 - as in the tasks that read files

    from raylora.cluster.data.rows import Source
    from raylora.cluster.data.sources import read_rows

    object_type = {"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": ""}
    field = pa.field("text", pa.large_binary(), metadata=object_type)
    column: pa.Array = pa.array([pickle.dumps(Trap(mark))], pa.large_binary())
    if nested:
        column = pa.StructArray.from_arrays([column], fields=[field])
        field = pa.field("text", column.type)
    table = pa.Table.from_arrays([column, pa.array(["a"])], schema=pa.schema([field, pa.field("label", pa.string())]))
    pyarrow.parquet.write_table(table, tmp_path / "evil.parquet")
    with pytest.raises(DataError, match=r"column 'text' is of the type .*not text or a number"):
        list(read_rows(Source(str(tmp_path / "evil.parquet"), "train", "parquet"), DataSection()))
    assert not mark.exists()


def test_yaml_makes_no_python_objects(mark: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        yaml12.load(f"run_name: !!python/object/apply:os.mkdir ['{mark}']", "job.yaml")
    assert not mark.exists()
