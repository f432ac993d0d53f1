"""An adapter that earlier code saved (tests/data/old, made by its make.py) answers as it did then."""

import json
from pathlib import Path

import pytest

import raylora


def test_an_old_adapter_predicts_what_the_code_that_saved_it_predicted(old_folders: Path) -> None:
    then = json.loads((old_folders / "predictions.json").read_text())
    predicted = raylora.load("run/adapter").predict([each["text"] for each in then])
    assert [each.label for each in predicted] == [each["label"] for each in then]
    assert [each.scores for each in predicted] == [pytest.approx(each["scores"], abs=1e-5) for each in then]
