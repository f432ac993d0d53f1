"""The files of a table that is to be scored. Knows no ray: a wrong path ends at once."""

from raylora.cluster.data import web
from raylora.cluster.data.rows import Source
from raylora.cluster.data.sources import sources_of
from raylora.config import Job
from raylora.errors import ConfigError
from raylora.records import Say


def list_texts(job: Job, say: Say) -> list[Source]:
    """The files of `predict.data`, in a fixed order.

    Raises:
        ConfigError: `predict.data` or `predict.output` is not set.
        DataError: nothing is there.
    """
    for key in ("data", "output"):
        if not getattr(job.predict, key):
            raise ConfigError(f"`predict.{key}` is not set. A table is scored by predict.data, .adapter and .output.")
    where = job.predict.data or []
    web.fetch(where, say)
    return sources_of(where, "test", job.data)
