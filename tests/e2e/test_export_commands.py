"""`raylora export` as a user types it, and to a hub on this machine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import run
from hub import Hub, running_hub
from huggingface_hub import ModelCard
from tiny import make_adapter

from raylora.cli.main import main
from raylora.config import ModelSection
from raylora.model.base.find import CARRIED, resolve

pytestmark = pytest.mark.e2e
(BASE,) = CARRIED


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a base that the hub has, too, and that a package of this machine carries."""
    base = Path(resolve(ModelSection(base_model=BASE)).path)
    return make_adapter(base, tmp_path_factory.mktemp("run") / "adapter", ("no|pe", "yes"))


def export(adapter: Path, hub: Hub, home: Path, *words: str) -> CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": "hf_of_this_test", "HF_HUB_DISABLE_XET": "1"}
    command = ("raylora", "export", str(adapter), "--to", "hub", "--repo-id", "me/reviews", *words)
    return run(*command, environ=environ | own, timeout_s=600)


def test_an_adapter_is_uploaded_with_the_base_that_others_can_get(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(adapter), "--to", "hub", "--repo-id", "me/reviews", "--base-model", BASE]
    assert main([*words, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    with running_hub() as hub:
        done = export(adapter, hub, tmp_path, "--private", "--base-model", BASE)
    assert done.returncode == 0, done.stderr  # the client draws its progress there
    assert f"output     {hub.address}/me/reviews/commit/1" in done.stdout
    assert hub.repo == {"name": "reviews", "organization": "me", "visibility": "private"}
    assert hub.tokens == {"Bearer hf_of_this_test"}
    listed = [line.split() for line in dry.splitlines() if line.startswith("file ")]
    assert {name: int(size.replace(",", "")) for _, size, name in listed} == {n: len(d) for n, d in hub.files.items()}
    own = {"adapter_config.json", "adapter_model.safetensors", "raylora.json", "README.md", "tokenizer.json"}
    assert own <= hub.files.keys()
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == BASE
    assert json.loads(hub.files["raylora.json"])["base_model"] == BASE
    assert ModelCard(hub.files["README.md"].decode()).data.base_model == BASE
    assert hub.files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    held = json.loads((adapter / "adapter_config.json").read_text())
    assert held["base_model_name_or_path"] != BASE, "the adapter itself is left as it was"


def test_a_merged_model_is_uploaded_whole(bases: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = make_adapter(bases("bert"), tmp_path / "adapter", ("no|pe", "yes"))
    with running_hub() as hub:
        done = export(adapter, hub, tmp_path, "--merged")
    assert done.returncode == 0, done.stderr  # the client draws its progress there
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "raylora_export.json",
    } <= hub.files.keys()
    assert json.loads(hub.files["config.json"])["id2label"] == {"0": "no|pe", "1": "yes"}


def test_what_the_hub_does_not_take_is_one_clear_error(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(adapter), "--to", "hub", "--repo-id", "me/reviews"]
    assert main([*words, "--base-model", BASE]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the hub did not take me/reviews: ") and "HF_TOKEN" in error, "HF_HUB_OFFLINE is set"
    assert main(words) == 2
    assert "base model is a folder of this machine" in capsys.readouterr().err


def test_the_job_writes_a_merged_folder_beside_the_adapter(bases: Callable[[str], Path], tmp_path: Path) -> None:
    make_adapter(bases("bert"), tmp_path / "run" / "adapter", ("no", "yes"))
    done = run("jobs/export.py", str(tmp_path / "run"), "--to", "merged", timeout_s=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["adapter", "check", "output"]
    assert (tmp_path / "run" / "merged" / "model.safetensors").is_file()
