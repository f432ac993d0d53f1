"""Rows with known labels to measure an export on: those that a run chose its best epoch by, or others."""

from raylora.cluster.data.prepare import splits_here
from raylora.cluster.data.sources import list_sources
from raylora.config import Job, parse_saved
from raylora.errors import DataError
from raylora.model.lora.manifest import Manifest
from raylora.model.tokens import TokenizerSpec, TokenTable
from raylora.tasks import Task, task_of


def rows_of(manifest: Manifest, spec: TokenizerSpec, data: str | None) -> tuple[TokenTable, Task]:
    """The validation rows of the adapter's run, read again from where its config says they are; or all of `data`.

    Raises:
        DataError: they cannot be read, or their labels are not the adapter's.
    """
    own = parse_saved(manifest.config).replace({"data.problem_type": manifest.problem_type})
    job = own if data is None else _of_file(own, manifest, data)
    splits = splits_here(job, list_sources(job.data), spec)
    if splits.labels != manifest.labels:
        raise DataError(f"the rows carry other labels than the adapter: {', '.join(splits.labels[:10])}.")
    return splits.validation, splits.task


def _of_file(own: Job, manifest: Manifest, data: str) -> Job:
    """All its rows as validation rows, in the adapter's labels."""
    named = {"data.labels": list(manifest.labels)} if task_of(manifest.problem_type).has_classes else {}
    alone = {"data.train": data, "data.validation": data, "data.test": None, "data.max_samples": None}
    return own.replace(alone | named)
