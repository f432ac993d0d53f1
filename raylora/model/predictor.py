"""Labels and scores for new texts, from a saved adapter, in this process."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raylora.errors import ConfigError, DataError, ModelError
from raylora.model.base.find import resolve, weights_digest
from raylora.model.base.load import load_base, load_tokenizer, read_config
from raylora.model.collator import Collator
from raylora.model.kinds import check_kind
from raylora.model.lora.manifest import base_of, read_manifest
from raylora.model.lora.save import load_adapter
from raylora.model.predict import predict_logits
from raylora.model.tokens import Text, encode, spec_for, table_of
from raylora.tasks import Prediction, Wish, task_of

if TYPE_CHECKING:
    from raylora.model.estimator import AdapterClassifier, AdapterRegressor

BATCH = 64
ADVICE = "Set `base_model=` of raylora.load, or `raylora predict --base-model`,"


class Predictor:
    """An adapter on its base model. Make one with `raylora.load(path)`.

    Args:
        trust_remote_code: run Python code that comes with the base model. The adapter's manifest, which anybody may
            have written, has no say in this.
        base_model: a local folder or hub id in place of the adapter's own; its weights must be the same.
    """

    def __init__(self, folder: Path, trust_remote_code: bool = False, base_model: str | None = None) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self.labels, self.task = self.manifest.labels, task_of(self.manifest.problem_type)
        self.base = base = resolve(base_of(self.manifest, trust_remote_code, base_model), ADVICE)
        digest = weights_digest(base)
        if digest != self.manifest.base_digest:
            raise ModelError(
                f"base model {base.id} in {base.path} has weights {digest[:12]}…, but {folder} was trained on "
                f"{self.manifest.base_model} with weights {self.manifest.base_digest[:12]}…. {ADVICE} to that one."
            )
        tokenizer = load_tokenizer(str(folder))
        self.tokenizer_spec = spec_for(tokenizer, self.manifest)
        loaded = load_base(
            base, read_config(base, self.labels, True, self.manifest.problem_type), self.tokenizer_spec.pad_id
        )
        with warnings.catch_warnings():  # PEFT asks for what Transformers has renamed
            warnings.simplefilter("ignore", FutureWarning)
            self.model = load_adapter(loaded.model, folder)

    def logits(self, texts: Sequence[Text]) -> np.ndarray:
        """[N, C] float32, in the order of `texts`.

        Raises:
            DataError: a text is not a string (or a pair of strings), is blank, is not Unicode, or is a pair where the
                adapter was trained on single texts, or the other way round.
        """
        _check(texts)
        check_kind(self.manifest, texts, "text")
        if not texts:
            return np.empty((0, len(self.labels)), dtype=np.float32)
        table = table_of(encode(texts, self.tokenizer_spec))
        return predict_logits(self.model, Collator(table, self.tokenizer_spec), BATCH, self.task.pool_windows)

    @property
    def classes_(self) -> np.ndarray:
        """[C] labels, sorted, as scikit-learn wants them; `labels` has them in id order."""
        return np.array(sorted(self.labels))

    def predict_proba(self, texts: Sequence[Text]) -> np.ndarray:
        """[N, C] probabilities, a column for each of `classes_`: of one label a text they sum to 1.

        Raises:
            DataError: as `logits`.
            ConfigError: the adapter gives numbers.
        """
        if not self.task.has_classes:
            raise ConfigError("this adapter gives numbers, which have no probabilities. Use `predict`.")
        columns = [self.labels.index(label) for label in self.classes_.tolist()]
        return self.task.scores(self.logits(texts))[:, columns]

    def as_sklearn(self) -> "AdapterClassifier | AdapterRegressor":
        """A fitted estimator for scikit-learn's tools, whose `predict` gives labels or numbers instead of records."""
        from raylora.model.estimator import AdapterClassifier, AdapterRegressor  # sklearn takes a second to load

        return AdapterClassifier(self) if self.task.has_classes else AdapterRegressor(self)

    def predict(
        self, texts: Sequence[Text], *, threshold: float | None = None, min_accuracy: float | None = None
    ) -> list[Prediction]:
        """One prediction per text, in order.

        Args:
            threshold: the score from which on a label is said, of several; None = of each label the adapter's own.
            min_accuracy: how often labels are to be right, of those that the adapter promises
                (`manifest.min_scores`); where the score is too low for that, `label` is None.

        Raises:
            DataError: as `logits`.
            ConfigError: a setting is no share, the adapter's task has none such, or it promises no such accuracy.
        """
        wish = Wish(threshold=threshold, min_accuracy=min_accuracy)
        self.task.check(wish, self.manifest.learned)
        return self.task.answers(self.logits(texts), self.manifest.learned, wish)


def _check(texts: Sequence[Text]) -> None:
    if isinstance(texts, str):
        raise DataError("predict takes a list of texts, found one string. Put it in a list.")
    for i, text in enumerate(texts):
        parts = text if isinstance(text, tuple | list) else (text,)
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise DataError(f"text {i} must be a string that is not blank, found {text!r}.")
        if isinstance(text, tuple | list) and len(text) != 2:
            raise DataError(f"text {i} must be one text or a pair of two, found {len(text)} of them.")
        if any("\ud800" <= letter <= "\udfff" for part in parts if not part.isascii() for letter in part):
            raise DataError(f"text {i} must be UTF-8, found {text[:80]!r}, which is not Unicode.")
