"""The commands on a machine with a GPU, as a user types them: what is `auto` takes it."""

import json
from pathlib import Path

import pytest
from commands import run
from serving import serving


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the main job wrote into, with no argument but where, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    done = run("jobs/train.py", f"storage_path={folder}", "run_name=first", timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.only_gpu
def test_the_main_job_takes_the_gpu_and_bf16(trained: tuple[Path, str]) -> None:
    folder, said = trained
    metrics = json.loads((folder / "first" / "metrics.json").read_text())
    assert metrics["dtype"] == "bfloat16", said
    assert "GPU" in metrics["cluster"]
    assert metrics["validation"]["accuracy"] > 0.75


@pytest.mark.only_gpu
def test_an_adapter_is_served_on_the_gpu_where_num_gpus_asks_for_it_and_else_on_cpus(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    texts = ["Works exactly as described.", "It broke on the second day."]
    labels: list[list[str]] = []
    for name, options in (("gpu", "{num_cpus: 1, num_gpus: 1}"), ("cpu", "{num_cpus: 1}")):
        folder = tmp_path / name
        folder.mkdir()
        words = [f"serve.adapters.demo={trained[0]}/first/adapter", f"serve.ray_actor_options={options}"]
        with serving(*words, folder=folder) as server:
            info = server.ask("GET", "/info").json
            assert info["device"].startswith("cuda" if name == "gpu" else "cpu"), info
            labels.append([answer[0]["label"] for answer in server.predict(texts).json])
    assert labels == [["positive", "negative"]] * 2


def test_a_sweep_packs_its_trials(gpu: bool, tmp_path: Path) -> None:
    words = [f"storage_path={tmp_path}", "run_name=sweep", "tune.num_samples=4", "train.num_train_epochs=2"]
    done = run("jobs/tune.py", *words, *([] if gpu else ["data.max_samples=100"]), timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "sweep" / "trials.csv").read_text().count("\n") == 5
    assert "4 at once" in done.stdout
