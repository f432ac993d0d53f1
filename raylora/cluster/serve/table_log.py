"""The table of adapters in storage: adapters.json, and the changes since, a file each that is created once.

A change of revision N is kept once `adapters.changes/N.jsonl` was created, which only one of several registries can do
(an upgrade to a new cluster has two for a while); the others then find it, take it over and change that table. Any
number of them may write adapters.json: whoever reads an older one reads more of the changes, which are kept for long.
"""

import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from raylora.cluster.serve import table as tables
from raylora.cluster.serve.table import Change, Table
from raylora.cluster.storage.exclusive import create_if_absent
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import ADAPTER_CHANGES, ADAPTERS, OLD_ADAPTER_CHANGES

logger = logging.getLogger(__name__)

RETAINED = 1000  # changes that stay beside a newer adapters.json, for registries that are behind
READERS = 16
TRIES = 5


class TableLog:
    """In an endpoint's folder. Every operation raises OSError where storage fails.

    Args:
        apart: changes that are kept apart of a table with more entries than that; a smaller one is written with each.
    """

    def __init__(self, folder: Location, apart: int) -> None:
        self.folder, self.apart = folder, apart
        self.changes = folder.inside(ADAPTER_CHANGES)
        self.written: int | None = None  # revision of adapters.json

    def load(self) -> Table:
        """All that was ever kept."""
        table, pending = self._whole(), [0]
        for _ in range(TRIES):
            pending = self._pending(table)
            if not pending or pending[0] == table.revision + 1:
                return table.after(self._read(pending))
            table = self._whole()  # what lay between went while this was read: it is in a newer adapters.json
        raise OSError(
            f"{self.changes.address} begins at change {pending[0]}, {ADAPTERS} beside it ends at {table.revision}: what"
            f" was between is lost. Bring {ADAPTERS} back, or remove both to start with the config alone."
        )

    def newer(self, table: Table) -> Table | list[Change]:
        """What was kept since this table; as a table where that is not known change by change any more."""
        pending = self._pending(table)
        if pending and pending[0] != table.revision + 1:
            return self.load()
        return self._read(pending)

    def keep(self, table: Table, changes: Sequence[Change]) -> bool:
        """Keep the changes that led to this table; False where others came first, and nothing was changed."""
        text = tables.dump_changes(changes)
        if not create_if_absent(self._file(changes[0].revision), text.encode()):
            return False
        if len(table.entries) <= self.apart or table.revision - (self.written or 0) >= self.apart:
            try:
                self.write(table)
            except OSError as error:  # the next one writes these changes, too
                logger.warning("%s cannot be written: %s", ADAPTERS, error)
        return True

    def write(self, table: Table) -> None:
        """Write adapters.json, and drop changes that have long been in it."""
        mine = self.folder.inside(f"{ADAPTERS}.{uuid.uuid4().hex}")  # another registry may write it at this moment
        mine.write_text(table.dump())
        mine.filesystem.move(mine.path, self.folder.inside(ADAPTERS).path)
        self.folder.inside(OLD_ADAPTER_CHANGES).delete()
        self.written = table.revision
        if table.revision % 50 == 0 or len(table.entries) > self.apart:
            for revision in self._revisions():
                if revision <= table.revision - RETAINED:
                    self._file(revision).delete()

    def _whole(self) -> Table:
        whole, old = (self.folder.inside(name) for name in (ADAPTERS, OLD_ADAPTER_CHANGES))
        found = tables.load(whole.read_text()) if whole.exists() else None
        self.written = found.revision if found else None
        table = found or Table()
        return table.after(tables.load_changes(old.read_text())) if old.exists() else table

    def _pending(self, table: Table) -> list[int]:
        return [revision for revision in self._revisions() if revision > table.revision]

    def _revisions(self) -> list[int]:
        """Of the changes that are kept apart, the first of each file."""
        names = (name.partition(".") for name in self.changes.files())
        return sorted(int(number) for number, _, kind in names if kind == "jsonl" and number.isdecimal())

    def _read(self, revisions: Sequence[int]) -> list[Change]:
        with ThreadPoolExecutor(READERS) as readers:
            texts = readers.map(lambda revision: self._file(revision).read_text(), revisions)
            return [change for text in texts for change in tables.load_changes(text)]

    def _file(self, revision: int) -> Location:
        return self.changes.inside(f"{revision:012d}.jsonl")
