"""What is kept of a text that is longer than `data.max_length`, on a tokenizer of one id a letter."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from raylora.cluster.data.prepare import splits_here
from raylora.cluster.data.sources import list_sources
from raylora.config import Job
from raylora.errors import ConfigError, DataError
from raylora.model.batches import BatchPlan, sorted_batches
from raylora.model.collator import Collator
from raylora.model.cut import limit_in_words, most_tokens
from raylora.model.limits import latency_ms
from raylora.model.packing import packable
from raylora.model.tokens import TokenTable, encode, encode_measured, padded_lengths, spec_for, table_of, tokenizer_spec
from raylora.model.windows import pool, pooled_logits
from raylora.tasks import TASKS

PAD, CLS, SEP, A = 0, 2, 3, 4
TEN = "a b c d e f g h i j"  # 4 to 13


def letters(special: bool = True) -> PreTrainedTokenizerFast:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
        )
    names: dict[str, Any] = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=["input_ids"], **names)


def kept(text: Any, truncation: Any, max_length: int = 8, **settings: int) -> list[int]:
    (row,) = encode([text], tokenizer_spec(letters(), max_length, truncation, **settings))["input_ids"].to_pylist()
    return row


def windows(text: str, max_length: int = 6, stride: int = 0, max_windows: int = 8) -> list[list[int]]:
    """Without padding."""
    spec = tokenizer_spec(letters(), max_length, "windows", stride, max_windows)
    batch = Collator(table_of(encode([text], spec)), spec)(np.arange(1))
    ids, mask = batch["input_ids"].tolist(), batch["attention_mask"].sum(1).tolist()
    assert batch["windows"].tolist() == [len(ids)]
    return [row[:tokens] for row, tokens in zip(ids, mask, strict=True)]


def test_end_keeps_the_first_tokens_start_the_last_middle_a_quarter_of_head_and_the_rest_of_tail() -> None:
    """Eight tokens, of which two are special: six letters of ten; of six, one is the head."""
    assert kept(TEN, "end") == [CLS, 4, 5, 6, 7, 8, 9, SEP]
    assert kept(TEN, "start") == [CLS, 8, 9, 10, 11, 12, 13, SEP]
    assert kept(TEN, "middle") == [CLS, 4, 9, 10, 11, 12, 13, SEP]
    assert kept(TEN, "middle", max_length=10) == [CLS, 4, 5, 8, 9, 10, 11, 12, 13, SEP]


@pytest.mark.parametrize("truncation", ["end", "start", "middle", "windows"])
def test_a_text_that_fits_is_kept_whole(truncation: str) -> None:
    assert kept("a b c d e f", truncation) == [CLS, 4, 5, 6, 7, 8, 9, SEP]


def test_start_and_middle_do_without_special_tokens() -> None:
    def row(truncation: Any) -> list[int]:
        return encode([TEN], tokenizer_spec(letters(special=False), 4, truncation))["input_ids"].to_pylist()[0]

    assert (row("start"), row("middle")) == ([10, 11, 12, 13], [4, 11, 12, 13])


def test_a_special_token_in_the_text_is_text() -> None:
    """The first letter typed is `[SEP]`: the head, as any other would be."""
    assert kept(f"[SEP] {TEN}", "middle") == [CLS, SEP, 9, 10, 11, 12, 13, SEP]


def test_pairs_are_cut_at_the_longer_text() -> None:
    assert kept(("a b c d e f g", "h i"), "end") == [CLS, 4, 5, 6, SEP, 11, 12, SEP]
    assert kept(("a b c d e f g", "h i"), "start") == [CLS, 8, 9, 10, SEP, 11, 12, SEP]


@pytest.mark.parametrize("truncation", ["middle", "windows"])
def test_a_pair_is_refused_where_only_single_texts_can_be_cut(truncation: str) -> None:
    with pytest.raises(DataError, match="pair of texts"):
        kept(("a", "b"), truncation)


def test_each_window_has_its_special_tokens_and_shares_stride_tokens_with_the_next() -> None:
    assert windows(TEN) == [[CLS, 4, 5, 6, 7, SEP], [CLS, 8, 9, 10, 11, SEP], [CLS, 12, 13, SEP]]
    assert windows(TEN, stride=1) == [[CLS, 4, 5, 6, 7, SEP], [CLS, 7, 8, 9, 10, SEP], [CLS, 10, 11, 12, 13, SEP]]
    assert windows("a b c d") == [[CLS, 4, 5, 6, 7, SEP]]
    assert windows("a b c d e", stride=3) == [[CLS, 4, 5, 6, 7, SEP], [CLS, 5, 6, 7, 8, SEP]]


def test_what_comes_after_max_windows_is_cut() -> None:
    assert windows(TEN, max_windows=2) == windows(TEN)[:2]
    assert windows(TEN, max_windows=1) == windows(TEN)[:1]
    assert len(windows(" ".join(TEN.split() * 1000), max_windows=5)) == 5


def test_a_stride_that_leaves_a_window_nothing_of_its_own_names_both_keys() -> None:
    assert tokenizer_spec(letters(), 8, "windows", 5).max_windows == 1
    with pytest.raises(ConfigError, match=r"`data.stride`.*`data.max_length`.*2 special.*stride of 6.*windows of 8"):
        tokenizer_spec(letters(), 8, "windows", 6)


TEXTS = ["a", TEN, "b c d e f", "j"]  # of 1, 3, 2 and 1 windows of four letters; 3, 16, 9 and 3 tokens


def table(chunks: int = 1) -> tuple[TokenTable, Any]:
    spec = tokenizer_spec(letters(), 6, "windows", 0, 8)
    whole = encode(TEXTS, spec)
    parts = [whole] if chunks == 1 else [encode([], spec), whole.slice(0, 2), pa.concat_tables([whole.slice(2)])]
    found = table_of(whole)
    return TokenTable(parts, found.rows, np.array([5, 6, 7, 8]), found.lengths), spec


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_batch_holds_all_windows_of_its_rows_in_any_chunk(chunks: int) -> None:
    rows, spec = table(chunks)
    batch = Collator(rows, spec)(np.array([2, 0, 1]))
    assert batch["windows"].tolist() == [2, 1, 3]
    assert batch["labels"].tolist() == [7, 5, 6]
    assert batch["input_ids"].tolist() == [
        [CLS, 5, 6, 7, 8, SEP],
        [CLS, 9, SEP, PAD, PAD, PAD],
        [CLS, 4, SEP, PAD, PAD, PAD],
        [CLS, 4, 5, 6, 7, SEP],
        [CLS, 8, 9, 10, 11, SEP],
        [CLS, 12, 13, SEP, PAD, PAD],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [6, 3, 3, 6, 6, 4]


def test_a_row_counts_the_tokens_of_all_its_windows() -> None:
    rows, spec = table()
    assert rows.lengths.tolist() == [3, 16, 9, 3]
    assert [len(ids) for ids in Collator(rows, spec).tokens()] == [3, 16, 9, 3]
    assert padded_lengths(encode(TEXTS, spec)).tolist() == [3, 18, 12, 3]
    assert padded_lengths(encode([], spec)).tolist() == []
    assert padded_lengths(encode(TEXTS, tokenizer_spec(letters(), 6))).tolist() == [3, 6, 6, 3]


def test_rows_of_like_cost_are_stepped_together() -> None:
    """Two rows of one window, two of two and three: never one of each."""
    rows, _ = table()
    steps = [sorted(micro.indices.tolist()) for micro in BatchPlan(rows.lengths, 0, 2, 2).epoch(0)]
    assert sorted(steps) == [[0, 3], [1, 2]]


def test_a_batch_of_prediction_holds_so_many_windows_or_one_row() -> None:
    lengths, counts = np.array([30, 10, 20, 10]), np.array([3, 1, 2, 1])
    cut = [batch.tolist() for batch in sorted_batches(lengths, 2, counts)]
    assert cut == [[1, 3], [2], [0]]
    assert [batch.tolist() for batch in sorted_batches(lengths, 4, counts)] == [[1, 3, 2], [0]]


def test_every_window_has_a_number_of_its_own_whatever_batch_it_is_in() -> None:
    """It keys the draws of dropout: a row's first window has the row's own number."""
    collator = Collator(*table())
    one, two = collator.numbers(np.array([1])), collator.numbers(np.array([3, 1]))
    assert one.tolist() == [1, 1 + 2**40, 1 + 2**41]
    assert two.tolist() == [3, *one.tolist()]


@pytest.mark.parametrize("truncation", ["end", "start", "middle"])
def test_without_windows_a_batch_is_as_ever(truncation: Any) -> None:
    spec = tokenizer_spec(letters(), 6, truncation)
    collator = Collator(table_of(encode(TEXTS, spec)), spec)
    assert sorted(collator(np.arange(4))) == ["attention_mask", "input_ids", "labels"]
    assert collator.numbers(np.array([3, 1])).tolist() == [3, 1]
    assert collator.windows is None


def test_logits_of_windows_are_pooled_by_row() -> None:
    """Rows of two windows and of one."""
    logits, counts = torch.tensor([[1.0, -4.0], [3.0, 2.0], [7.0, 8.0]]), torch.tensor([2, 1])
    assert pool(logits, counts, "mean").tolist() == [[2.0, -1.0], [7.0, 8.0]]
    assert pool(logits, counts, "max").tolist() == [[3.0, 2.0], [7.0, 8.0]]


def test_a_model_sees_no_windows_and_its_logits_are_left_alone_without_them() -> None:
    class Model:
        def __call__(self, input_ids: torch.Tensor) -> Any:
            self.logits = input_ids.float()
            return self

    batch = {"input_ids": torch.tensor([[2], [4], [9]])}
    assert pooled_logits(Model(), batch, "mean").tolist() == [[2.0], [4.0], [9.0]]
    assert pooled_logits(Model(), {**batch, "windows": torch.tensor([2, 1])}, "mean").tolist() == [[3.0], [9.0]]


def test_of_several_labels_a_row_carries_what_some_window_carries() -> None:
    assert {name: task.pool_windows for name, task in TASKS.items()} == {
        "single_label_classification": "mean",
        "multi_label_classification": "max",
        "regression": "mean",
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.truncation": "windows", "data.text_pair_column": "b"}, "`truncation: windows` is of single texts"),
        ({"data.truncation": "middle", "data.text_pair_column": "b"}, "`truncation: middle` is of single texts"),
        ({"data.stride": 4}, "`stride` is of `truncation: windows`, found 4 with end"),
        (
            {"data.truncation": "windows", "data.stride": 64, "data.max_length": 64},
            r"`stride` must be less than `max_length` \(64\), found 64",
        ),
        ({"data.truncation": "windows", "data.max_windows": 0}, "data.max_windows"),
        ({"data.truncation": "tail"}, "data.truncation"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Job().replace(settings)


def test_the_spec_follows_the_config_and_pairs_go_with_end_and_start() -> None:
    job = Job().replace({"data.truncation": "windows", "data.stride": 2, "data.max_length": 8})
    assert spec_for(letters(), job.data) == tokenizer_spec(letters(), 8, "windows", 2, 8)
    assert Job().replace({"data.truncation": "start", "data.text_pair_column": "b"}).data.truncation == "start"


def test_windows_are_not_packed() -> None:
    assert packable(Job().replace({"data.truncation": "windows"})) == "data.truncation: windows"
    assert packable(Job().replace({"data.truncation": "middle"})) is None


def test_the_longest_text_that_is_kept_whole() -> None:
    """Windows of 6 hold 4 letters: three of them 12, and sharing one 4 + 3 + 3; two special tokens are counted once."""
    windowed = Job().replace({"data.truncation": "windows", "data.max_length": 6, "data.max_windows": 3}).data
    sharing = windowed.model_copy(update={"stride": 1})
    assert [most_tokens(data, 2) for data in (Job().data, windowed, sharing)] == [128, 14, 12]
    assert limit_in_words(windowed) == "data.max_windows=3 of 6 tokens"
    assert limit_in_words(Job().data) == "data.max_length=128"
    assert len(windows(TEN, stride=1)) == 3 and len(windows(f"{TEN} a", stride=1)) == 4


@pytest.mark.parametrize("settings", [("end", 0, 1), ("start", 0, 1), ("middle", 0, 1), ("windows", 2, 3)])
def test_a_text_is_measured_whole_however_it_is_cut(settings: Any) -> None:
    texts = [TEN, "a b", " ".join(TEN.split() * 7)]
    found = encode_measured(texts, tokenizer_spec(letters(), 6, *settings))
    assert found["tokens"].to_pylist() == [12, 4, 72]


def test_a_files_long_texts_are_rows_of_windows(tmp_path: Path) -> None:
    """Read, tokenized and split as a job's are: each text is one row of its split, with all of its windows."""
    lines = [json.dumps({"text": f"{'abcdefghij'[i]} {TEN}", "label": "xy"[i % 2]}) for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    job = Job().replace(
        {"data.train": str(tmp_path / "rows.jsonl"), "data.truncation": "windows", "data.max_length": 6}
    )
    splits = splits_here(job, list_sources(job.data), spec_for(letters(), job.data))
    assert (len(splits.train), len(splits.validation)) == (8, 2)
    collator = Collator(splits.train, splits.tokenizer)
    assert collator.windows is not None and collator.windows.tolist() == [3] * 8
    assert splits.train.lengths.tolist() == [11 + 6] * 8
    firsts = collator(np.arange(8))["input_ids"][::3]
    assert len({row[1].item() for row in firsts}) == 8 and (firsts[:, 2:5] == torch.tensor([4, 5, 6])).all()


def test_a_row_longer_than_a_window_is_timed_in_windows() -> None:
    """Of 1,000 tokens in windows of 128: eight of 125."""

    class Model(torch.nn.Linear):
        shapes: set[tuple[int, ...]] = set()

        def forward(self, *_: Any, **inputs: torch.Tensor) -> Any:
            self.shapes.add(tuple(inputs["input_ids"].shape))
            self.logits = inputs["attention_mask"]
            return self

    assert latency_ms(Model(1, 1), 1000, 128, repeats=3) > 0
    assert latency_ms(Model(1, 1), 100, 128, repeats=3) > 0
    assert Model.shapes == {(8, 125), (1, 100)}
