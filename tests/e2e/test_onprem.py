"""`jobs/clusters/onprem.yaml` on three hosts: a client, a head and a worker, with Ray's own launcher over ssh.

The hosts reach no registry, so two of the file's setup commands are replaced: the environment is the tests' own,
mounted read-only, and pip takes nothing but the package that the launcher copied there.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hosts
import pytest
import yaml
from commands import ROOT
from hosts import VENV, Host

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = f"{hosts.HOME}/onprem.yaml"
DASHBOARD = "--address http://localhost:8265"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
ALONE_S = 150  # `ray down` ends the head's Ray; a worker's ends by itself when it has missed the head for a minute
JOB = """\
data: {max_samples: 80}
model: {base_model: /mnt/raylora/base}
train: {num_train_epochs: 2}
storage_path: ${RAYLORA_STORAGE}/runs
run_name: first
"""


def on_hosts(head: Host, worker: Host) -> dict[str, Any]:
    """The shipped file with these addresses, one CPU a host, and setup commands that need no registry."""
    config = yaml.safe_load((ROOT / "jobs" / "clusters" / "onprem.yaml").read_text(encoding="utf-8"))
    environment, venv, pip = config["setup_commands"]
    assert "raylora.env" in environment and "-m venv" in venv and "pip install" in pip
    config["setup_commands"] = [
        environment,
        "echo 'export PYTHONPATH=$HOME/site HF_HUB_OFFLINE=1' >> ~/raylora.env",
        f"ln -sfn {VENV} ~/raylora-env",
        "~/raylora-env/bin/pip install -q --no-index --no-deps --no-build-isolation --target ~/site ~/raylora",
    ]
    config["provider"] |= {"head_ip": head.ip, "worker_ips": [worker.ip]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_ed25519"}
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start = config[commands]
        config[commands] = [stop, f"{start} --num-cpus=1 --object-store-memory=100000000"]
    return config | {"min_workers": 1, "max_workers": 1}


def succeeds(host: Host, command: str, timeout_s: float) -> str:
    result = host.run(f"cd {ROOT} && {command}", TOKEN, timeout_s)
    assert result.returncode == 0, f"{command}\n{result.stdout}"
    return result.stdout


@contextmanager
def tunnel(client: Host) -> Generator[None]:
    """`ray dashboard`, until the block ends."""
    process = subprocess.Popen(
        client.command(f"cd {ROOT} && exec ray dashboard {CONFIG}", TOKEN),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while client.run(f"ray job list {DASHBOARD}", TOKEN).returncode:
            assert time.monotonic() < until, "no dashboard behind the tunnel"
        yield
    finally:
        process.terminate()
        process.wait(10)


def nodes_of_workers(client: Host) -> set[str]:
    """Nodes that Ray Train's workers ran on."""
    listed = succeeds(client, f"ray list actors {DASHBOARD} --detail --format json --limit 1000", 60)
    actors = json.loads(listed[listed.index("[") :])
    return {actor["node_id"] for actor in actors if "TrainWorker" in actor["class_name"]}


def processes_of_ray(host: Host) -> str:
    return host.run("pgrep -af '[r]aylet/raylet|[g]cs_server'").stdout


def test_ray_up_submit_of_two_workers_on_two_hosts_and_ray_down(tmp_path: Path, bases: Callable[[str], Path]) -> None:
    reason = "needs root" if os.geteuid() else hosts.missing()
    if reason:
        pytest.skip(reason)
    shared = tmp_path / "shared"
    shutil.copytree(bases("bert"), shared / "base")
    with hosts.hosts("client", "head", "worker", folder=tmp_path, shared=shared) as (client, head, worker):
        (client.home / "onprem.yaml").write_text(yaml.safe_dump(on_hosts(head, worker)))
        (client.home / "job.yaml").write_text(JOB)
        shutil.copy(client.home / "job.yaml", shared)
        succeeds(client, "ray get-auth-token --generate", 60)

        up = succeeds(client, f"ray up -y --no-config-cache {CONFIG}", 120)
        assert "Ray runtime started" in up
        with tunnel(client):
            refused = client.run(f"ray job list {DASHBOARD}", {"RAY_AUTH_MODE": "disabled"})
            assert refused.returncode != 0 and "token" in refused.stdout.lower()
            submit = f"ray job submit {DASHBOARD} --working-dir . -- python jobs/train.py /mnt/raylora/job.yaml"
            said = succeeds(client, f"{submit} ray.num_workers=2 ray.scale_up_timeout_s=90", 240)
            assert "epoch 2 " in said and "accuracy" in said, said
            assert len(nodes_of_workers(client)) == 2

        run = shared / "runs" / "first"
        assert json.loads((run / "metrics.json").read_text())["num_workers"] == 2
        assert {"adapter_config.json", "adapter_model.safetensors", "raylora.json"} <= {
            path.name for path in (run / "adapter").iterdir()
        }
        for host in (head, worker):
            assert (host.home / "site" / "raylora" / "cli" / "main.py").is_file()
            assert not any((host.home / "raylora" / name).exists() for name in (".git", ".venv", "tests"))
            assert "raylet" in processes_of_ray(host)

        succeeds(client, f"ray down -y {CONFIG}", 120)
        assert processes_of_ray(head) == ""
        until = time.monotonic() + ALONE_S
        while alone := processes_of_ray(worker):
            assert time.monotonic() < until, alone
            time.sleep(2)
