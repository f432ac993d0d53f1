"""What every node of a cluster must see under one path: the run folder and local data files."""

import os
import uuid
from pathlib import Path

import ray

from raylora.cluster.data.rows import Source
from raylora.cluster.session import Cluster, alive_nodes, ask_nodes
from raylora.cluster.storage.filesystem import is_remote
from raylora.cluster.storage.lock import Lockable
from raylora.errors import ClusterError

LOOKED_AT = 1000  # files of a job; a folder that is not there lacks them all


def preflight(folder: Lockable, sources: list[Source], cluster: Cluster) -> None:
    """Look from every node that runs tasks, before anything is written here that belongs elsewhere.

    Raises:
        ClusterError: a node does not see a local path; names both.
    """
    if len(cluster.nodes) == 1:
        return
    files = [source.path for source in sources[:LOOKED_AT] if not is_remote(source.path)]
    if not folder.location.is_local:
        _check(files, folder.place_key)
        return
    mark = f".reach-{uuid.uuid4().hex}"  # its name alone tells this folder from another of the same path
    with folder.named("written to"):
        folder.location.inside(mark).write_text("")
    try:
        _check([f"{folder.path}/{mark}", *files], folder.place_key)
    finally:
        folder.location.inside(mark).delete()


def _check(paths: list[str], key: str) -> None:
    nodes = [node for node in alive_nodes() if node["Resources"].get("CPU")]
    for node, missing in ask_nodes(_look, nodes, paths) if paths else []:
        if missing is None:
            continue
        at = f"node {node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
        if "/.reach-" in missing:
            raise ClusterError(
                f"`{key}`: {os.path.dirname(os.path.dirname(missing))} is not the same folder on {at} as where "
                f"the job runs. Set `{key}` to a folder that all nodes share (NFS, EFS), or to s3:// or gs://."
            )
        raise ClusterError(
            f"{missing} is not there on {at}. Put `data` on storage that all nodes see: a shared folder, s3:// or gs://."
        )


@ray.remote(num_cpus=0)
def _look(paths: list[str]) -> str | None:
    """The first of the paths that this node does not have."""
    return next((path for path in paths if not Path(path).exists()), None)
