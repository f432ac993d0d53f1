"""Files become a dataset: read, checked and tokenized once, by Ray Data."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray import ObjectRef

from raylora.cluster.data.dataset import Dataset, assemble
from raylora.cluster.data.parts import cut
from raylora.cluster.data.report import head_lines, warning_lines
from raylora.cluster.data.rows import Part, Row, Source
from raylora.cluster.data.sources import read_rows
from raylora.cluster.data.split import text_hash
from raylora.cluster.storage.run_folder import BAD_ROWS, DATA_REPORT, RunFolder
from raylora.config import DataSection, Job
from raylora.errors import DataError, EmptyFileError
from raylora.model.tokens import TokenizerSpec, encode_measured
from raylora.records import Say
from raylora.scripts import script_of
from raylora.tasks.parsed import no_rows

if TYPE_CHECKING:
    from raylora.model.fit.splits import Splits

PART_BYTES = 2**24  # of text: a few seconds of a core
MOST_TASKS = 2000  # small files share one then: each costs the driver some 10 ms
OUTLINE = ["label", "hash", "source", "place", "fault", "script", "tokens"]
ROWS_PER_BATCH = 4096  # facts of this stack: 35,500 rows/s, against 32,000 with whole blocks


def prepare(job: Job, sources: list[Source], tokenizer: TokenizerSpec, part_bytes: int = PART_BYTES) -> Dataset:
    """Read, check, tokenize and split the files of a job, in one Ray Data execution.

    Each file is a task's, and each part of a file larger than `part_bytes`; the rows, their places and the split do not
    depend on it.

    Raises:
        DataError: names each bad row's place (unless they are skipped), or what the labels lack.
    """
    blocks = _joined(token_blocks(job, sources, tokenizer, part_bytes), sources)
    outlines = ray.get([_outline_there.remote(block) for block in blocks])
    full = [i for i, outline in enumerate(outlines) if outline is not None]  # a file may hold no row
    if not full:
        raise no_rows()
    outline = pa.concat_tables([outlines[i] for i in full])
    return assemble(job.data, job.split_seed, sources, tokenizer, [blocks[i] for i in full], outline)


def splits_here(job: Job, sources: list[Source], tokenizer: TokenizerSpec) -> "Splits":
    """The splits that `prepare` makes, in this process, without Ray.

    Raises:
        DataError: as `prepare`.
    """
    block = blocks_here(job, sources, tokenizer).combine_chunks()
    return assemble(job.data, job.split_seed, sources, tokenizer, [], outline_of(block)).over([block])


def read_here(job: Job, sources: list[Source], tokenizer: TokenizerSpec) -> pa.Table:
    """The outline of all rows, read in this process, without Ray.

    Raises:
        DataError: a file cannot be read, or none holds a row.
    """
    return outline_of(blocks_here(job, sources, tokenizer))


def blocks_here(job: Job, sources: list[Source], tokenizer: TokenizerSpec) -> pa.Table:
    """Tokens of all rows, read in this process, without Ray.

    Raises:
        DataError: a file cannot be read, or none holds a row.
    """
    pieces = [(i, Part()) for i in range(len(sources))]
    numbers = {"piece": np.arange(len(sources))}
    blocks = list(_read(numbers, pieces, sources, job.data, job.split_seed, tokenizer))
    if not blocks:
        raise no_rows()
    return pa.concat_tables(blocks)


def token_blocks(job: Job, sources: list[Source], tokenizer: TokenizerSpec, part_bytes: int) -> list[ObjectRef]:
    """Read, check and tokenize: a block of each task, in any order.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        return _run_tasks(job, sources, pieces_of(job.data, sources, part_bytes), tokenizer)
    except Exception as error:  # noqa: BLE001 - Ray wraps what a task raised, once per layer
        raise _user_error(error) or error from None


def _joined(blocks: list[ObjectRef], sources: list[Source]) -> list[ObjectRef]:
    """Those of small files together: whoever works through the rows has a task, or a chunk, for each block."""
    size = sum(source.size or PART_BYTES for source in sources)
    most = min(math.ceil(size / PART_BYTES), len(blocks))
    groups = [blocks[i * len(blocks) // most : (i + 1) * len(blocks) // most] for i in range(most)]
    return [group[0] if len(group) == 1 else _concat.remote(*group) for group in groups]


@ray.remote
def _concat(*blocks: pa.Table) -> pa.Table:
    return pa.concat_tables([block for block in blocks if block.num_rows] or blocks[:1])


def pieces_of(data: DataSection, sources: list[Source], part_bytes: int) -> list[tuple[int, Part]]:
    """What is read on its own: the number of each source, and a part of it."""
    large = {i: _cut.remote(data, s, part_bytes) for i, s in enumerate(sources) if (s.size or 0) > part_bytes}
    parts = dict(zip(large, ray.get(list(large.values())), strict=True))
    return [(i, part) for i in range(len(sources)) for part in parts.get(i, [Part()])]


@ray.remote(scheduling_strategy="SPREAD")
def _cut(data: DataSection, source: Source, part_bytes: int) -> list[Part]:
    return cut(source, data, part_bytes)


def _run_tasks(job: Job, sources: list[Source], pieces: list[tuple[int, Part]], tokenizer: TokenizerSpec) -> list[Any]:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    shared = ray.put(tokenizer)  # 0.7 MB of vocabulary: once per node, not once per task
    numbers = [{"piece": i} for i in range(len(pieces))]
    # a block of numbers is a task. One step, not two: Ray Data would give the second's batch size to the first as well
    tokens = ray.data.from_items(numbers, override_num_blocks=min(len(pieces), MOST_TASKS)).map_batches(
        cast(Any, _read),
        batch_size=None,
        fn_kwargs={
            "pieces": pieces,
            "sources": sources,
            "data": job.data,
            "seed": job.split_seed,
            "tokenizer": shared,
        },
    )
    return list(tokens.materialize().to_arrow_refs())


def _user_error(error: BaseException | None) -> DataError | None:
    while error is not None:
        if isinstance(error, DataError):
            return DataError(*error.args)
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _read(
    batch: dict[str, np.ndarray],
    pieces: list[tuple[int, Part]],
    sources: list[Source],
    data: DataSection,
    seed: int,
    tokenizer: Any,
) -> Iterator[pa.Table]:
    """Tokens of some pieces, a table per 4,096 rows."""
    spec: TokenizerSpec = ray.get(tokenizer) if isinstance(tokenizer, ObjectRef) else tokenizer
    for number in batch["piece"]:
        index, part = pieces[number]
        rows = read_rows(sources[index], data, part)
        with suppress(EmptyFileError):  # `list_sources` has seen another that is not
            while batch_rows := list(islice(rows, ROWS_PER_BATCH)):
                yield _tokenize(_table(batch_rows, index, data, seed), spec)


def _table(rows: Sequence[Row], index: int, data: DataSection, seed: int) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "text": pa.array([row.text for row in rows], pa.large_string()),
        "label": pa.array([row.label for row in rows], pa.string()),
        "hash": pa.array([text_hash(row.text, row.text_pair, seed) for row in rows], pa.uint64()),
        "source": pa.array([index] * len(rows), pa.int32()),
        "place": pa.array([row.place for row in rows], pa.int64()),
        "fault": pa.array([row.fault and _printable(row.fault) for row in rows], pa.string()),
        "script": pa.array([script_of(f"{row.text} {row.text_pair or ''}") for row in rows], pa.int8()),
    }
    if data.text_pair_column:
        columns["text_pair"] = pa.array([row.text_pair or "" for row in rows], pa.large_string())
    return pa.table(columns)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _tokenize(table: pa.Table, spec: TokenizerSpec) -> pa.Table:
    texts = table["text"].to_pylist()
    dropped = ["text"]
    if "text_pair" in table.column_names:
        texts = list(zip(texts, table["text_pair"].to_pylist(), strict=True))
        dropped.append("text_pair")
    encoded = encode_measured(texts, spec)
    for name in encoded.column_names:
        table = table.append_column(name, encoded[name])
    return table.drop_columns(dropped)


def outline_of(block: pa.Table) -> pa.Table:
    """Everything of a block but its tokens, for the driver."""
    lengths = pa.chunked_array([chunk.value_lengths() for chunk in block["input_ids"].chunks], pa.int32())
    return block.select(OUTLINE).append_column("length", lengths)


@ray.remote
def _outline_there(block: pa.Table) -> pa.Table | None:
    return _outline(block)


def _outline(block: pa.Table) -> pa.Table | None:
    """None of a block without rows."""
    return outline_of(block) if block.num_rows else None


def announce(dataset: Dataset, folder: RunFolder, say: Say) -> None:
    """Say what the dataset holds; write data_report.json, and bad_rows.jsonl where rows were left out."""
    rows = {split: len(r.rows) for split, r in dataset.splits.items()}
    if dataset.bad_rows:
        folder.write_text(BAD_ROWS, "".join(json.dumps(row) + "\n" for row in dataset.bad_rows))
    labels = dataset.task.in_words(dataset.splits["train"].targets, dataset.labels)
    say(f"rows       {', '.join(f'{n:,} {split}' for split, n in rows.items())}; {labels}")
    if dataset.left_out:
        say(f"excluded   {dataset.left_out}")
    folder.write_json(DATA_REPORT, dataset.report.as_dict())
    for line in [*head_lines(dataset.report), *warning_lines(dataset.report)]:
        say(line)
