"""The Kubernetes manifests against KubeRay's and Kubernetes's fields, and against raylora's own reading."""

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from kuberay import faults
from ray.serve.schema import ServeDeploySchema

from raylora.cluster.serve.endpoint import serve_config
from raylora.config import file as jobfile
from raylora.config import parse, yaml12

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "jobs" / "kubernetes"
KINDS = {
    "serve": ["RayService"],
    "storage": ["PersistentVolumeClaim"],
    "train": ["ConfigMap", "RayJob"],
    "tune": ["ConfigMap", "RayJob"],
}

every_cluster = pytest.mark.parametrize("name", ["train", "tune", "serve"])


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def cluster(name: str) -> dict[str, Any]:
    spec = documents(name)[-1]["spec"]
    return spec.get("rayClusterSpec") or spec["rayClusterConfig"]


def pods(name: str) -> list[dict[str, Any]]:
    """The specs of every pod that the manifest describes."""
    own = documents(name)[-1]["spec"].get("submitterPodTemplate")
    groups = [cluster(name)["headGroupSpec"], *cluster(name)["workerGroupSpecs"]]
    return [template["spec"] for template in [*([own] if own else []), *(group["template"] for group in groups)]]


def gpus(group: dict[str, Any]) -> str | None:
    return group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all mappings in a document."""
    if isinstance(tree, dict):
        yield path
        for key, value in tree.items():
            yield from places(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from places(value, (*path, index))


def test_every_manifest_is_known_here() -> None:
    assert {path.stem: [each["kind"] for each in documents(path.stem)] for path in FOLDER.glob("*.yaml")} == KINDS


@pytest.mark.parametrize("name", KINDS)
def test_the_api_server_would_take_the_manifest(name: str) -> None:
    assert [faults(document) for document in documents(name)] == [[] for _ in KINDS[name]]


# their keys are the user's
FREE = {"labels", "rayStartParams", "requests", "limits", "data"}


@pytest.mark.parametrize("name", ["train", "serve"])
def test_a_misspelt_field_is_refused_wherever_it_stands(name: str) -> None:
    document = documents(name)[-1]
    tried = [path for path in places(document) if not FREE & set(path)]
    assert len(tried) > 60
    for path in tried:
        wrong = copy.deepcopy(document)
        at = wrong
        for key in path:
            at = at[key]
        at["mispelt"] = 1
        assert faults(wrong), f"{path} takes any field"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("spec", "backoffLimit"), "2", "is not of type 'integer'"),
        (("spec", "backoffLimit"), 2**31, "is greater than the maximum"),
        (("spec", "preRunningDeadlineSeconds"), 0, "is less than the minimum"),
        (("spec", "submissionMode"), "HTTP", "is not one of"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "on", "is not one of"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), {"num-cpus": 0}, "is not of type 'string'"),
        (("spec", "rayClusterSpec", "workerGroupSpecs"), [{"groupName": "x"}], "required property"),
    ],
)
def test_a_value_of_another_type_is_refused(path: tuple[str, ...], value: Any, reason: str) -> None:
    document = documents("train")[-1]
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (fault, *_) = faults(document)
    assert fault.startswith(".".join(path)) and reason in fault


@every_cluster
def test_pods_run_as_a_user_without_rights_and_say_what_they_need(name: str) -> None:
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] >= 1000
        (container,) = pod["containers"]
        locked = container["securityContext"]
        assert (locked["allowPrivilegeEscalation"], locked["capabilities"]) == (False, {"drop": ["ALL"]})
        assert locked["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


@every_cluster
def test_ray_pods_are_probed_where_no_token_is_asked_for(name: str) -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    head, *workers = pods(name)[-3:]
    for pod in (head, *workers):
        (container,) = pod["containers"]
        for probe in ("startupProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == 52365 and asked["path"] in PUBLIC_EXACT_PATHS
    assert head["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/api/gcs_healthz", "port": 8265}


@every_cluster
def test_every_mount_has_its_volume_and_storage_is_the_claim(name: str) -> None:
    (claim,) = documents("storage")
    for pod in pods(name)[-3:]:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes.keys()
        assert volumes["storage"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@every_cluster
def test_secrets_are_those_that_storage_yaml_makes(name: str) -> None:
    text = (FOLDER / "storage.yaml").read_text(encoding="utf-8")
    made = set(re.findall(r"create secret generic (\S+)", text))
    used = re.findall(r"(?:secretName: |secretRef: \{name: |secretKeyRef: \{name: )([\w-]+)", _text(name))
    assert {"raylora-token"} <= set(used) <= made
    assert cluster(name)["authOptions"] == {"mode": "token", "secretName": "raylora-token"}


def _text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


@every_cluster
def test_the_cluster_scales_a_pool_of_cpus_and_one_of_gpus(name: str) -> None:
    spec = cluster(name)
    assert (spec["rayVersion"], spec["enableInTreeAutoscaling"]) == (ray.__version__, True)
    assert {group["groupName"]: gpus(group) for group in spec["workerGroupSpecs"]} == {"cpu": None, "gpu": "1"}
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] == group["replicas"] <= group["maxReplicas"] <= 4


@pytest.mark.parametrize(("name", "gpu_nodes"), [("train", (0, 4)), ("tune", (2, 2))])
def test_a_job_is_one_that_raylora_takes_and_its_workers_fit(name: str, gpu_nodes: tuple[int, int]) -> None:
    config, rayjob = documents(name)
    command, _, mounted = rayjob["spec"]["entrypoint"].partition(" ")
    assert (command, mounted) == ("raylora", f"{name} /etc/raylora/job.yaml")
    place = FOLDER / "job.yaml"
    tree = yaml12.load(config["data"]["job.yaml"].replace("${RAYLORA_STORAGE}", "/mnt/raylora"), str(place))
    job = parse(tree)
    assert job.run_name and job.storage_path == "/mnt/raylora/runs", "a retry goes on only under the same name"
    assert rayjob["spec"]["backoffLimit"] > 0 and rayjob["spec"]["shutdownAfterJobFinishes"]
    gpu = next(group for group in cluster(name)["workerGroupSpecs"] if gpus(group))
    assert (gpu["minReplicas"], gpu["maxReplicas"]) == gpu_nodes
    workers = job.ray.num_workers if isinstance(job.ray.num_workers, int) else 1
    assert job.ray.use_gpu is True and workers <= gpu["maxReplicas"]
    assert job.ray.resources_per_worker["CPU"] <= int(
        gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    )
    assert gpu["minReplicas"] > 0 or job.ray.scale_up_timeout_s > 0, "nobody would wait for the first GPU"


def test_train_and_tune_run_on_the_same_pods() -> None:
    train, tune = (cluster(name) for name in ("train", "tune"))
    for spec in (train, tune):
        for group in spec["workerGroupSpecs"]:
            del group["replicas"], group["minReplicas"], group["maxReplicas"]
        for pod in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (volume,) = [each for each in pod["template"]["spec"]["volumes"] if each["name"] == "job"]
            volume["configMap"]["name"] = ""
    assert train == tune


def test_the_served_config_is_what_the_command_in_its_comment_prints() -> None:
    (line,) = re.findall(r"#   (raylora serve .+) --print-config", _text("serve").replace("\\\n#      ", ""))
    job = jobfile.read(shlex.split(line)[2:], {})
    printed, shipped = yaml.safe_load(serve_config(job)), _served()
    ServeDeploySchema(**shipped)
    assert shipped["http_options"] == printed["http_options"]
    (ours,), (theirs,) = shipped["applications"], printed["applications"]
    assert parse(ours.pop("args")) == parse(theirs.pop("args"))
    assert ours == theirs


def test_it_is_jobs_serve_yaml_but_for_places_and_keys() -> None:
    shipped, other = _served(), yaml.safe_load((ROOT / "jobs" / "serve.yaml").read_text())
    assert shipped.pop("http_options") == other.pop("http_options") | {"host": "0.0.0.0"}
    ours, theirs = (tree["applications"][0]["args"] for tree in (shipped, other))
    assert ours["serve"].pop("host") == "0.0.0.0"
    assert ours["serve"].pop("api_keys").startswith("env:")
    for tree in (ours, theirs):
        del tree["storage_path"], tree["serve"]["adapter_root"]
    assert shipped == other


def _served() -> dict[str, Any]:
    (service,) = documents("serve")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def test_keys_of_the_endpoint_reach_every_pod_that_may_build_or_run_it() -> None:
    variable = _served()["applications"][0]["args"]["serve"]["api_keys"].removeprefix("env:")
    for pod in pods("serve"):
        assert variable in {each["name"] for each in pod["containers"][0]["env"]}
