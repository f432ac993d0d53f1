"""A table's texts through several adapters over one base: tokens are made once, and each adapter scores every row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from raylora.model.collator import Collator
from raylora.model.predict import in_order, run_batches
from raylora.model.serving.adapter import ServedAdapter
from raylora.model.serving.base import ServedBase
from raylora.model.tokens import Text, TokenizerSpec, encode, table_of


class Scorer:
    """Adapters of one base, in order.

    Args:
        folders: of the adapters, each saved by raylora.
        batch_size: rows that are run together, at most; windows, where rows are read in these.

    Raises:
        ModelError: an adapter is broken, or was trained on another base.
    """

    def __init__(self, base: ServedBase, folders: Sequence[Path], batch_size: int) -> None:
        self.base, self.batch_size = base, batch_size
        self.adapters = [base.load(folder) for folder in folders]

    def logits(self, texts: Sequence[Text]) -> list[np.ndarray]:
        """[N, C] float32 of each adapter, in the order of `texts`, which are not blank.

        They depend on nothing but the texts: the same ones are the same batches.
        """
        if not texts:
            return [np.empty((0, len(adapter.labels)), np.float32) for adapter in self.adapters]
        found: dict[int, np.ndarray] = {}
        for spec in {id(adapter.spec): adapter.spec for adapter in self.adapters}.values():
            own = [i for i, adapter in enumerate(self.adapters) if adapter.spec is spec]
            found |= dict(zip(own, self._of_spec(texts, spec, [self.adapters[i] for i in own]), strict=True))
        return [found[i] for i in range(len(self.adapters))]

    def _of_spec(
        self, texts: Sequence[Text], spec: TokenizerSpec, adapters: Sequence[ServedAdapter]
    ) -> list[np.ndarray]:
        """Of adapters with one tokenizer, which see the same batches."""

        def forward(batch: dict[str, Tensor]) -> list[np.ndarray]:
            rows = len(batch["windows"] if "windows" in batch else batch["input_ids"])
            return [np.stack(self.base.logits(batch, [adapter] * rows)) for adapter in adapters]

        collator = Collator(table_of(encode(texts, spec)), spec)
        parts = list(run_batches(collator, self.batch_size, forward, self.base.device))
        return [in_order([(indices, each[i]) for indices, each in parts]) for i in range(len(adapters))]
