"""`raylora export` as a user types it, and to a hub on this machine."""

import hashlib
import json
import os
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import run
from hub import Hub, running_hub
from huggingface_hub import ModelCard
from tiny import make_adapter

from raylora.config import ModelSection
from raylora.model.base.find import CARRIED, resolve

pytestmark = pytest.mark.e2e
(BASE,) = CARRIED


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a base that the hub has, too, and that a package of this machine carries."""
    folder = tmp_path_factory.mktemp("run") / "adapter"
    (folder.parent / "config.yaml").write_text("run_name: run\n")
    return make_adapter(Path(resolve(ModelSection(base_model=BASE)).path), folder, ("no|pe", "yes"))


def export(adapter: Path, hub: Hub, home: Path, *words: str) -> CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": "hf_of_this_test"}
    command = ("raylora", "export", str(adapter), "--to", "hub", "--base-model", BASE, *words)
    return run(*command, environ=environ | own, timeout_s=300)


def test_an_adapter_is_uploaded_with_the_base_that_others_can_get(adapter: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        dry = export(adapter, hub, tmp_path, "--repo-id", "me/reviews", "--dry-run")
        assert (dry.returncode, dry.stderr, hub.calls) == (0, "", [])
        done = export(adapter, hub, tmp_path, "--repo-id", "me/reviews", "--private")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"output     {hub.address}/api/models/me/reviews/commit/main/1" in done.stdout
    assert (hub.repo["name"], hub.repo["organization"], hub.repo["visibility"]) == ("reviews", "me", "private")
    assert hub.tokens == {"Bearer hf_of_this_test"}
    listed = {
        line.split()[2]: int(line.split()[1].replace(",", "")) for line in dry.stdout.splitlines() if "file " in line
    }
    assert listed == {name: len(data) for name, data in hub.files.items()}
    own = {"adapter_config.json", "adapter_model.safetensors", "raylora.json", "README.md", "tokenizer.json"}
    assert own <= hub.files.keys()
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == BASE
    assert json.loads(hub.files["raylora.json"])["base_model"] == BASE
    assert ModelCard(hub.files["README.md"].decode()).data.base_model == BASE
    saved = (adapter / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(hub.files["adapter_model.safetensors"]).digest() == hashlib.sha256(saved).digest()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] != BASE


def test_a_merged_model_is_uploaded_whole_and_a_refusal_is_one_clear_error(adapter: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.refuses = True
        refused = export(adapter, hub, tmp_path, "--repo-id", "me/reviews")
        hub.refuses = False
        done = export(adapter, hub, tmp_path, "--repo-id", "me/reviews", "--merged")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: the hub did not take me/reviews: ")
    assert "HF_TOKEN" in refused.stderr and "Traceback" not in refused.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "raylora_export.json",
    } <= hub.files.keys()
    assert json.loads(hub.files["config.json"])["id2label"] == {"0": "no|pe", "1": "yes"}


def test_the_job_writes_a_merged_folder_beside_the_adapter(adapter: Path) -> None:
    done = run("jobs/export.py", str(adapter.parent), "--to", "merged", timeout_s=300)
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.split()[0] for line in done.stdout.splitlines()]
    assert said == ["adapter", "check", "output"]
    assert (adapter.parent / "merged" / "model.safetensors").is_file()
