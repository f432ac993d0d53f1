"""Under which name a base model is known, and where another machine or another reader finds it. No weights are read."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from raylora.config import Job, ModelSection
from raylora.errors import ModelError
from raylora.model.base.find import pin_revision, resolve, resolve_on_node, whole_name
from raylora.model.lora.manifest import Manifest, base_of, served_base


def base(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_local_folder_is_known_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base(tmp_path / "home" / "base")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    for name in ("base", "./base", "~/base", str(tmp_path / "home" / "base")):
        assert resolve(ModelSection(base_model=name)).id == whole_name(name) == str(tmp_path / "home" / "base")
    assert whole_name("org/base") == "org/base"


def test_another_machine_finds_the_same_base_at_its_own_path_or_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, weights in (("driver", b"weights"), ("node", b"weights"), ("other", b"others")):
        cached = tmp_path / machine / "models--org--base"  # as the hub's client keeps org/base
        base(cached / "snapshots" / ("0" * 40), weights)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "driver"))
    pinned = pin_revision(resolve(ModelSection(base_model="org/base")))
    assert (pinned.id, pinned.origin) == ("org/base", "hub cache")
    assert resolve_on_node(pinned) == pinned
    shutil.rmtree(tmp_path / "driver")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "node"))
    assert resolve_on_node(pinned).path.startswith(str(tmp_path / "node"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(ModelError, match="has other weights than where the job started"):
        resolve_on_node(pinned)


def test_a_base_that_is_not_there_is_told_how_the_caller_names_another(tmp_path: Path) -> None:
    gone = ModelSection(base_model=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match=r"gone' was not found[\s\S]*\nSet `model\.base_model` to a local folder"):
        resolve(gone)
    with pytest.raises(ModelError, match=r"\nSay it to a local folder"):
        resolve(gone, "Say it")


def test_an_adapters_base_is_its_own_or_the_one_that_is_named() -> None:
    manifest = Manifest(("a", "b"), "org/own", "v1", "digest", 64, pooling="mean")
    own = base_of(manifest)
    assert (own.base_model, own.revision, own.pooling, own.trust_remote_code) == ("org/own", "v1", "mean", False)
    named = base_of(manifest, True, "/moved")
    assert (named.base_model, named.revision, named.pooling, named.trust_remote_code) == ("/moved", None, "mean", True)
    assert base_of(manifest, base_model="org/own") == own


def test_an_endpoint_runs_the_base_that_its_config_names_else_the_adapters() -> None:
    manifest = Manifest(("a", "b"), "org/own", "v1", "digest", 64, pooling="mean")
    assert served_base(manifest, Job().model) == base_of(manifest)
    trusting = Job().replace({"model.trust_remote_code": True})
    assert served_base(manifest, trusting.model) == base_of(manifest, True)
    named = Job().replace({"model.base_model": "/moved", "model.revision": "v2"})
    assert served_base(manifest, named.model) == ModelSection(base_model="/moved", revision="v2", pooling="mean")
