"""The cluster files, by the launcher's own reading of them."""

import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from raylora.config import file as jobfile

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "cluster.yaml", *sorted((ROOT / "jobs" / "clusters").glob("*.yaml"))]
CLOUDS = [path for path in FILES if path.stem in ("cluster", "gcp", "azure")]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_cloud = pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def prepared(path: Path) -> dict[str, Any]:
    """What `ray up` works on: with Ray's defaults, checked against its schema."""
    config = prepare_config(read(path))
    validate_config(config)
    return config


def test_there_is_a_file_for_every_place() -> None:
    assert [read(path)["provider"]["type"] for path in FILES] == ["aws", "azure", "local", "gcp", "local"]


@every_file
def test_the_launcher_takes_the_file(path: Path) -> None:
    config = prepared(path)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["idle_timeout_minutes"] == 5


@every_file
@pytest.mark.parametrize("change", [{"idle_timeout": 5}, {"max_workers": "8"}, {"auth": {"user": "me"}}], ids=str)
def test_the_launcher_refuses_what_it_does_not_know(path: Path, change: dict[str, Any]) -> None:
    config = prepared(path)
    with pytest.raises(ValidationError):
        validate_config(config | change)


@every_cloud
def test_the_launcher_refuses_a_misspelt_node_type(path: Path) -> None:
    config = prepared(path)
    config["available_node_types"]["gpu_spot"]["min_worker"] = 1
    with pytest.raises(ValidationError, match="min_worker"):
        validate_config(config)


@every_file
def test_nodes_get_this_package_from_its_constraints_without_what_is_no_part_of_it(path: Path) -> None:
    config = prepared(path)
    assert config["file_mounts"]["~/raylora"] == "."
    assert {"**/.git", "**/.venv", "**/.env", "**/runs"} <= set(config["rsync_exclude"])
    install = "install -q -c ~/raylora/constraints.txt"
    assert [install in command for command in config["worker_setup_commands"]].count(True) == 1
    assert [install in command for command in config["head_setup_commands"]].count(True) == 1


@every_file
def test_ray_runs_with_its_token_and_a_dashboard_that_only_ssh_reaches(path: Path) -> None:
    config = prepared(path)
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert "RAY_AUTH_MODE=token" in " ".join(config["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


@every_file
def test_a_job_takes_its_storage_from_the_cluster(path: Path, tmp_path: Path) -> None:
    (storage,) = re.findall(r"RAYLORA_STORAGE=(\S+)", " ".join(prepared(path)["setup_commands"]))
    job = tmp_path / "job.yaml"
    job.write_text("storage_path: ${RAYLORA_STORAGE}/runs\n")
    assert jobfile.read([str(job)], {"RAYLORA_STORAGE": storage}).storage_path == f"{storage}/runs"


@every_cloud
def test_a_cloud_at_rest_rents_its_head_alone(path: Path) -> None:
    config = prepared(path)
    types = config["available_node_types"]
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in types.items()} == {
        "head": (0, 0),
        "gpu_spot": (0, 8),
        "gpu_on_demand": (0, 0),
    }
    assert config["max_workers"] == 8
    assert "GPU" not in types["head"]["resources"]
    assert types["gpu_spot"]["resources"]["GPU"] == types["gpu_on_demand"]["resources"]["GPU"] == 1


@every_cloud
def test_spot_is_the_one_difference_of_the_two_gpu_types(path: Path) -> None:
    types = prepared(path)["available_node_types"]
    spot, on_demand = (str(types[name]["node_config"]).lower() for name in ("gpu_spot", "gpu_on_demand"))
    assert re.search("spot|preemptible", spot)
    assert not re.search("spot|preemptible", on_demand)


@every_file
def test_images_hold_the_ray_of_the_constraints(path: Path) -> None:
    (pinned,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned == ray.__version__
    docker = read(path).get("docker", {})
    images = [value for key, value in docker.items() if key.endswith("image")]
    assert all(re.fullmatch(rf"rayproject/ray:{re.escape(pinned)}-py311(-gpu)?", image) for image in images)
    assert bool(images) == (path.stem != "onprem")


@every_file
def test_the_autoscaler_is_one_that_knows_the_provider(path: Path) -> None:
    old = "RAY_enable_autoscaler_v2=0" in " ".join(prepared(path)["head_start_ray_commands"])
    assert old == (read(path)["provider"]["type"] == "local"), "the newer one starts no local worker (ray#57153)"
