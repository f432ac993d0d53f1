"""Encoding and padding, on a WordPiece tokenizer trained here on a dozen words."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from raylora.model.collator import Collator
from raylora.model.tokens import (
    TokenTable,
    encode,
    encode_measured,
    special_tokens,
    table_of,
    tokenizer_spec,
    vocabulary,
)

PAD, CLS, SEP = 0, 2, 3
WORDS = ["the", "film", "is", "good", "bad", "very", "not", "plot", "and", "cast", "were", "dull"]
TEXTS = ["the film is good", "bad", "the plot and the cast were very very dull", "not good", "good film"]


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def fast(backend: Tokenizer, type_ids: bool = False, **settings: Any) -> PreTrainedTokenizerFast:
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * type_ids
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **special, **settings)


def ids_of(table: pa.Table) -> list[list[int]]:
    return table["input_ids"].to_pylist()


def test_encode_adds_special_tokens_and_one_id_per_known_word(backend: Tokenizer) -> None:
    table = encode(["Good FILM", "bad"], tokenizer_spec(fast(backend), 16))
    words = {word: backend.token_to_id(word) for word in WORDS}
    assert None not in words.values()
    assert ids_of(table) == [[CLS, words["good"], words["film"], SEP], [CLS, words["bad"], SEP]]
    assert table.column_names == ["input_ids"]
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())


def test_encode_keeps_max_length_tokens_special_ones_included(backend: Tokenizer) -> None:
    (row,) = ids_of(encode([" ".join(WORDS)], tokenizer_spec(fast(backend), 6)))
    assert row == [CLS, *(backend.token_to_id(word) for word in WORDS[:4]), SEP]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokens_of_a_whole_text_are_counted_whatever_is_cut(backend: Tokenizer, side: str) -> None:
    """Single texts and pairs, cut once, cut into many parts, and not cut."""
    singles = [" ".join(WORDS), "good", "very good film", "bad " * 50]
    pairs = [(" ".join(WORDS), "bad " * 20), ("good", "bad"), ("good " * 9, "bad")]
    spec = tokenizer_spec(fast(backend, truncation_side=side), 6)
    for texts in (singles, pairs):
        found = encode_measured(texts, spec)
        assert ids_of(found) == ids_of(encode(texts, spec))
        whole = encode(texts, tokenizer_spec(fast(backend), 1000))
        assert found["tokens"].to_pylist() == [len(ids) for ids in ids_of(whole)]
    assert encode_measured(singles, spec)["tokens"].to_pylist() == [14, 3, 5, 52]


def test_special_tokens_and_the_vocabulary_are_those_of_the_tokenizer(backend: Tokenizer) -> None:
    spec = tokenizer_spec(fast(backend), 6)
    assert (special_tokens(spec), special_tokens(spec, pair=True)) == (2, 3)
    assert set(WORDS) <= set(vocabulary(spec))


@pytest.mark.parametrize("max_length", [5, 8, 64])
def test_encode_gives_the_ids_of_transformers_for_texts_and_pairs(backend: Tokenizer, max_length: int) -> None:
    tokenizer = fast(backend, type_ids=True)
    spec = tokenizer_spec(tokenizer, max_length)
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    assert ids_of(encode(TEXTS, spec)) == tokenizer(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    expected = tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=max_length)
    found = encode(pairs, spec)
    assert ids_of(found) == expected["input_ids"]
    assert found["token_type_ids"].to_pylist() == expected["token_type_ids"]


def test_the_spec_leaves_the_tokenizer_alone_and_travels_by_value(backend: Tokenizer) -> None:
    tokenizer = fast(backend)
    spec = tokenizer_spec(tokenizer, 5)
    assert tokenizer.backend_tokenizer.truncation is None
    assert len(tokenizer(" ".join(WORDS))["input_ids"]) == len(WORDS) + 2
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert ids_of(encode(TEXTS, pickle.loads(pickle.dumps(spec)))) == ids_of(encode(TEXTS, spec))


def test_no_texts_are_no_rows(backend: Tokenizer) -> None:
    table = encode([], tokenizer_spec(fast(backend), 8))
    assert (table.num_rows, len(table_of(table))) == (0, 0)


def test_type_ids_come_with_pairs_only_and_only_where_the_base_has_them(backend: Tokenizer) -> None:
    with_types, without = tokenizer_spec(fast(backend, type_ids=True), 8), tokenizer_spec(fast(backend), 8)
    pair = [("good", "bad film")]
    assert encode(pair, with_types)["token_type_ids"].to_pylist() == [[0, 0, 0, 1, 1, 1]]
    assert encode(pair, without).column_names == ["input_ids"]
    assert encode(["good"], with_types).column_names == ["input_ids"]


def test_a_batch_is_padded_to_its_own_longest_row(backend: Tokenizer) -> None:
    spec = tokenizer_spec(fast(backend), 64)
    table = encode(TEXTS, spec)
    collate, ids = Collator(table_of(table), spec), ids_of(table)
    batch = collate(np.array([1, 3]))  # three and four tokens; the table's longest row has eleven
    assert batch["input_ids"].tolist() == [[*ids[1], PAD], ids[3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert {str(value.dtype) for value in batch.values()} == {"torch.int64"}
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    assert collate(np.array([2]))["input_ids"].shape == (1, 11)


def test_pairs_as_lists_are_pairs_also_among_single_texts(backend: Tokenizer) -> None:
    spec = tokenizer_spec(fast(backend, type_ids=True), 8)
    found = encode(["bad", ["good", "bad film"], ("good", "bad film")], spec)
    assert found["token_type_ids"].to_pylist() == [[0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert ids_of(found)[1] == ids_of(found)[2]


def test_blocks_of_single_texts_beside_blocks_of_pairs_have_types_of_zeros(backend: Tokenizer) -> None:
    spec = tokenizer_spec(fast(backend, type_ids=True), 8)
    chunks = [encode([], spec), encode(["good film"], spec), encode([("good", "bad")], spec)]
    table = TokenTable(chunks, np.arange(2), np.zeros(2, dtype=np.int64), np.array([4, 5], dtype=np.int32))
    batch = Collator(table, spec)(np.arange(2))
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_texts_are_cut_where_the_tokenizer_cuts_them(backend: Tokenizer, side: str) -> None:
    tokenizer = fast(backend, truncation_side=side)
    texts = [" ".join(WORDS), "the film is good and the cast is not"]
    expected = tokenizer(texts, truncation=True, max_length=6)["input_ids"]
    assert ids_of(encode(texts, tokenizer_spec(tokenizer, 6))) == expected
    assert backend.token_to_id("dull" if side == "left" else "the") in expected[0]


def test_padding_is_on_the_right_unless_the_head_needs_it_on_the_left(backend: Tokenizer) -> None:
    right = tokenizer_spec(fast(backend, padding_side="left"), 64)
    assert not right.pad_left, "a row's places do not depend on the longest of its batch"
    spec = replace(right, pad_left=True)
    table = encode(TEXTS, spec)
    batch = Collator(table_of(table), spec)(np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[PAD] * 3 + ids_of(table)[1], ids_of(table)[0]]
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1], [1] * 6]


def test_padding_uses_the_tokenizers_own_pad_id(backend: Tokenizer) -> None:
    tokenizer = fast(backend, type_ids=True)
    tokenizer.pad_token = "[UNK]"
    spec = tokenizer_spec(tokenizer, 64)
    batch = Collator(table_of(encode([("bad", "bad"), ("very good", "bad")], spec)), spec)(np.array([0, 1]))
    assert batch["input_ids"][0, -1] == backend.token_to_id("[UNK]") == 1
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]


def test_labels_follow_their_rows(backend: Tokenizer) -> None:
    spec = tokenizer_spec(fast(backend), 64)
    table = table_of(encode(TEXTS, spec))
    labelled = TokenTable(table.chunks, table.rows, np.array([4, 3, 2, 1, 0]), table.lengths)
    assert Collator(labelled, spec)(np.array([4, 0, 0]))["labels"].tolist() == [0, 4, 4]
    assert Collator(table, spec)(np.array([4, 0]))["labels"].tolist() == [0, 0]


def test_rows_are_found_in_any_chunk(backend: Tokenizer) -> None:
    spec = tokenizer_spec(fast(backend), 64)
    whole = encode(TEXTS, spec)
    chunks = [
        whole.slice(0, 2),
        whole.slice(2, 0),
        whole.slice(2, 1),
        pa.concat_tables([whole.slice(3, 1), whole.slice(4)]),
    ]
    lengths = table_of(whole).lengths
    rows = np.array([4, 0, 2, 3, 1])  # the table's own order is not that of the chunks
    collate = Collator(TokenTable(chunks, rows, np.arange(5), lengths[rows]), spec)
    for i, row in enumerate(rows):
        batch = collate(np.array([i]))
        assert batch["input_ids"].tolist() == [ids_of(whole)[row]]
        assert batch["labels"].tolist() == [i]


def test_a_table_to_predict_is_every_row_in_order(backend: Tokenizer) -> None:
    encoded = encode(TEXTS, tokenizer_spec(fast(backend), 64))
    table = table_of(encoded.slice(1, 3))
    assert (len(table), table.rows.tolist(), table.targets.tolist()) == (3, [0, 1, 2], [0, 0, 0])
    assert table.lengths.tolist() == [3, 11, 4]
