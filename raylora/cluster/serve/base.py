"""Which base model an endpoint serves: decided once, by its registry, for all of its replicas."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve.table import Table
from raylora.cluster.storage.filesystem import inside
from raylora.config import Job, ModelSection
from raylora.errors import RayLoraError
from raylora.model.lora.manifest import Manifest, read_manifest, served_base

LOOKED_AT = 20  # adapters of the table, and of the root, that are asked for their base


@dataclass(frozen=True)
class Decision:
    """What a start decided: the base, and the adapter that named it, None where that was the config itself.

    `start` is the start's own word; a registry that finds it here comes back after a crash, and decides nothing.
    """

    start: str
    base: ModelSection
    adapter: str | None

    def dump(self) -> str:
        tree = {"start": self.start, "adapter": self.adapter, "base": self.base.model_dump()}
        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def load(text: str) -> Decision:
    """`Decision.dump` undone."""
    tree = json.loads(text)
    return Decision(tree["start"], ModelSection.model_validate(tree["base"]), tree["adapter"])


def decide(job: Job, table: Table, start: str, before: Decision | None, manifests: Mapping[str, Manifest]) -> Decision:
    """The base of the first adapter that can be read: of the config's, the table's, the one that decided at the start
    before, the root's. The config's own where it names one, or where there is no adapter yet.

    Args:
        manifests: of adapters that were read already, by their paths.
    """
    for path in _paths(job, table, before):
        manifest = manifests.get(path) or _manifest(path)
        if manifest:
            return Decision(start, served_base(manifest, job.model), path)
    return Decision(start, job.model, None)


def _manifest(path: str) -> Manifest | None:
    try:
        with folders.local(folders.find(path)) as folder:
            return read_manifest(folder)
    except (RayLoraError, OSError):
        return None


def _paths(job: Job, table: Table, before: Decision | None) -> Iterator[str]:
    yield from job.serve.adapters.values()
    for entry in list(table.entries.values())[:LOOKED_AT]:
        yield entry.current.path
    root = job.serve.adapter_root
    if before and before.adapter:
        yield before.adapter
    if root:
        yield from (inside(root, name) for name in folders.names(root)[:LOOKED_AT])
