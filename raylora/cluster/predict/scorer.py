"""What one process of the pool does: it holds the base and the adapters, and scores a part at a time. Knows no ray."""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import torch

from raylora.cluster.data.rows import Source
from raylora.cluster.data.whole import WholeRows, read_chunks
from raylora.cluster.predict.adapters import AdapterCopy, unpacked
from raylora.cluster.predict.columns import KINDS, table_of
from raylora.cluster.predict.formats import Format, writer_of
from raylora.cluster.predict.output import Output
from raylora.cluster.predict.plan import PartPlan
from raylora.cluster.storage.filesystem import is_full
from raylora.config import DataSection, ModelSection
from raylora.errors import DataError, FullDiskError
from raylora.model.serving.base import ServedBase
from raylora.model.serving.scorer import Scorer
from raylora.tasks import Wish


@dataclass(frozen=True)
class Work:
    """All that a process needs, as it travels.

    Args:
        schema: of the data's columns that are kept.
        threads: of torch, on CPUs.
    """

    output: str
    sources: Sequence[Source]
    parts: Sequence[PartPlan]
    data: DataSection
    schema: pa.Schema
    adapters: Sequence[AdapterCopy]
    model: ModelSection
    wish: Wish
    format: Format
    all_scores: bool
    batch_size: int
    dtype: str
    use_gpu: bool
    threads: int

    @property
    def whole_schema(self) -> pa.Schema:
        """Of what is written."""
        own = [adapter.fields(self.all_scores).items() for adapter in self.adapters]
        return pa.schema([*self.schema, *(pa.field(name, KINDS[kind]) for each in own for name, kind in each)])


class PartScorer:
    """Scores parts of a table, one at a time.

    Raises:
        ModelError: the base is not here, or an adapter does not fit it.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        device = torch.device("cuda" if work.use_gpu else "cpu")
        if not work.use_gpu:
            torch.set_num_threads(work.threads)
        base = ServedBase(work.model, getattr(torch, work.dtype), device)
        with unpacked(work.adapters) as folders:
            self.scorer = Scorer(base, folders, work.batch_size)
        self.output = Output(work.output)

    def score(self, plan: PartPlan) -> int:
        """Score a part and write it; how many rows were scored.

        Raises:
            FullDiskError: there is no room, here or in the output.
            DataError: the file has changed.
        """
        try:
            with tempfile.TemporaryFile(prefix="raylora-part-") as file:
                mark = self.score_into(file, plan)
                self.output.put(plan.name, file, mark)
        except OSError as error:
            if not is_full(error):
                raise
            raise FullDiskError(
                f"{tempfile.gettempdir()} on {os.uname().nodename} is full: {error}. Make room there, then run the "
                "same command: parts that are written are kept."
            ) from None
        return mark["rows"]

    def score_into(self, file: IO[bytes], plan: PartPlan) -> dict[str, Any]:
        """Write a part with its predictions; its mark.

        Raises:
            DataError: the file holds other rows than when it was read before.
        """
        work, source = self.work, self.work.sources[plan.source]
        writer = writer_of(work.format, file, work.whole_schema)
        counts: dict[str, Counter[str]] = {adapter.name: Counter() for adapter in work.adapters}
        rows = bad = 0
        for chunk in read_chunks(source, work.data, plan.part, work.schema.names):
            good = chunk.good()
            rows, bad = rows + len(good.rows), bad + len(chunk.rows) - len(good.rows)
            if good.rows:
                writer.write(self.table(good, counts))
        writer.close()
        if (rows + bad, bad) != (plan.rows, plan.bad):
            raise DataError(
                f"{source.path} changed while it was read: {plan.rows} rows, then {rows + bad} in {plan.name}. Start "
                "anew, with another `predict.output`."
            )
        return {"rows": rows, "bad": bad, "counts": {name: dict(each) for name, each in counts.items()}}

    def table(self, chunk: WholeRows, counts: Mapping[str, Counter[str]]) -> pa.Table:
        """Rows with their predictions, which are counted."""
        work = self.work
        pairs = [(row.text, row.text_pair) for row in chunk.rows]
        texts = [text if pair is None else (text, pair) for text, pair in pairs]
        columns = table_of(chunk, work.schema).columns
        for adapter, logits in zip(work.adapters, self.scorer.logits(texts), strict=True):
            task, own = adapter.task, adapter.manifest
            found = task.answers(logits, own.learned, work.wish)
            counts[adapter.name].update(label or "" for each in found for label in task.counted(each))
            cells = [task.cells(each, own.labels, work.all_scores) for each in found]
            kinds = adapter.fields(work.all_scores).values()
            columns += [pa.array(c, KINDS[kind]) for c, kind in zip(zip(*cells, strict=True), kinds, strict=True)]
        return pa.Table.from_arrays(columns, schema=work.whole_schema)
