"""The base of an endpoint: loaded once, with room for adapters wherever some adapter needs it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from raylora.config import ModelSection
from raylora.errors import ModelError
from raylora.model.base.find import BaseFolder, resolve, weights_digest
from raylora.model.base.load import load_base, load_tokenizer, pooling_of, read_config, set_padding
from raylora.model.base.precision import base_goes_on, bf16_pays, keep_head_in_fp32
from raylora.model.lora.positions import is_fed_positions
from raylora.model.lora.save import load_adapter
from raylora.model.packing import NotPackable
from raylora.model.serving.adapter import (
    TOKENIZER,
    Files,
    LoraLayout,
    LoraSlice,
    ServedAdapter,
    read_files,
    read_shared,
    why_alone,
)
from raylora.model.serving.int8 import held_bytes, to_int8
from raylora.model.serving.layers import BatchIndex, ServedHead, ServedLinear
from raylora.model.tokens import TokenizerSpec, spec_for
from raylora.model.windows import pool, sequences
from raylora.tasks import task_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_PLACES = LoraLayout({})
ANY_LABELS = ("0", "1")  # the base's own head is replaced by each adapter's


def resolve_dtype(name: str, use_gpu: bool, int8: bool = False) -> torch.dtype:
    """Of `serve.dtype`: auto is bf16 on GPUs that have it and on CPUs with AMX, but for what is not in int8."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    return torch.bfloat16 if bf16_pays(use_gpu) and not int8 else torch.float32


class ServedBase:
    """A frozen base and the adapters' way through it. Adapters are loaded by any thread, run by one.

    Args:
        int8: whether its linear layers are held in int8 (`to_int8`); on CPUs, beside float32.

    Raises:
        ModelError: the base model cannot be found or loaded; int8 elsewhere.
    """

    def __init__(self, model: ModelSection, dtype: torch.dtype, device: torch.device, int8: bool = False) -> None:
        if int8 and (device.type != "cpu" or dtype != torch.float32):
            raise ModelError(f"`serve.int8` runs on CPUs, beside float32; here it is {dtype} on {device.type}.")
        self.folder = resolve(model)
        self.digest = weights_digest(self.folder)
        self.dtype, self.device, self.int8 = dtype, device, int8
        pad_id: Any = load_tokenizer(self.folder.path).pad_token_id
        self.model = self._load(self.folder, ANY_LABELS, dtype, pad_id)
        if int8:
            to_int8(self.model)
        self.rows = BatchIndex()
        self.replaced: dict[str, nn.Module] = {}
        self.mixes = self.model.config.model_type != "deberta-v2"  # its attention is fed a table that has no rows
        self.specs: dict[tuple[bytes, ...], TokenizerSpec] = {}
        self.layouts: dict[tuple[LoraSlice, ...], LoraLayout] = {}

    def _load(self, folder: BaseFolder, labels: tuple[str, ...], dtype: torch.dtype, pad_id: int) -> "PreTrainedModel":
        loaded = load_base(folder, read_config(folder, labels, dropout=False), pad_id, dtype)
        loaded.model.requires_grad_(False)
        return loaded.model.to(self.device).eval()  # pyright: ignore[reportArgumentType]

    def load(self, folder: Path, merged: bool = False) -> ServedAdapter:
        """The adapter in a folder; `merged`, or where it cannot share the base, as a model of its own.

        Raises:
            ModelError: it is broken, or was trained on another base.
        """
        files = read_files(folder)
        if files.manifest.base_digest != self.digest:
            raise ModelError(
                f"adapter {folder} was trained on {files.manifest.base_model} with weights "
                f"{files.manifest.base_digest[:12]}…, this endpoint "
                f"runs {self.folder.id} with {self.digest[:12]}…. One endpoint serves one base model; "
                "`model.base_model` names it."
            )
        spec = self._spec(files)
        if merged or why_alone(files.config, self.model) or files.manifest.pooling != pooling_of(self.folder):
            return self._whole(files, spec)
        return read_shared(files, self.model, spec, self.layouts)

    def _spec(self, files: Files) -> TokenizerSpec:
        """Adapters with the same tokenizer share one: 700 kB each otherwise."""
        paths = [files.folder / name for name in TOKENIZER]
        own = files.manifest
        cut = (own.max_length, own.truncation, own.stride, own.max_windows)
        key = (*(path.read_bytes() if path.is_file() else b"" for path in paths), repr(cut).encode())
        if key not in self.specs:
            self.specs[key] = spec_for(load_tokenizer(str(files.folder)), own)
        return self.specs[key]

    def _whole(self, files: Files, spec: TokenizerSpec) -> ServedAdapter:
        own = replace(self.folder, pooling=files.manifest.pooling)
        tuned: Any = load_adapter(self._load(own, files.manifest.labels, torch.float32, spec.pad_id), files.folder)
        merged: Any = tuned.merge_and_unload(safe_merge=True)
        held: Any = keep_head_in_fp32(merged, merged.new_modules, self.dtype)
        merged = held.to(self.device).eval()
        if self.int8:
            to_int8(merged)
        size = held_bytes(merged)
        return ServedAdapter(files.digest, files.manifest, spec, NO_PLACES, torch.empty(0), {}, size, whole=merged)

    def batch_key(self, served: ServedAdapter) -> object:
        """Adapters of one batch_key can be in one batch."""
        return None if served.whole is None and self.mixes else served

    @torch.inference_mode()
    def logits(self, batch: dict[str, Tensor], adapters: Sequence[ServedAdapter]) -> list[np.ndarray]:
        """[C] float32 of each row, C being its adapter's number of labels.

        Args:
            batch: of `Collator`, [N, T]; row i is of `adapters[i]`. All are of one batch_key, and of one padding.
        """
        if "windows" in batch:
            return self._pooled_logits(batch, adapters)
        inputs = {name: values.to(self.device) for name, values in batch.items() if name != "labels"}
        if adapters[0].whole is not None:
            own: Any = adapters[0].whole
            return list(own(**inputs).logits.float().cpu().numpy())
        self._inject_adapters(adapters)
        places = {layout: i for i, layout in enumerate(dict.fromkeys(a.layout for a in adapters))}
        order = sorted(range(len(adapters)), key=lambda i: (places[adapters[i].layout], id(adapters[i])))
        ordered = [adapters[i] for i in order]
        if order != list(range(len(order))):
            inputs = {name: values[order] for name, values in inputs.items()}
        self.rows.set_adapters(ordered)
        set_padding(self.model, ordered[0].spec.pad_id)  # the adapter's own tokenizer may name another than the base's
        model: Any = self.model
        try:
            found = model(**inputs).logits.float().cpu().numpy()
        except NotPackable:
            self.mixes = False
            raise
        rows = {i: row[: len(a.labels)] for i, a, row in zip(order, ordered, found, strict=True)}
        return [rows[i] for i in range(len(adapters))]

    def _pooled_logits(self, batch: dict[str, Tensor], adapters: Sequence[ServedAdapter]) -> list[np.ndarray]:
        """Each window through its row's adapter, as a row of its own."""
        counts: list[int] = batch["windows"].tolist()
        owners = [adapter for adapter, count in zip(adapters, counts, strict=True) for _ in range(count)]
        found = iter(self.logits(sequences(batch), owners))
        rows: list[np.ndarray] = []
        for adapter, count in zip(adapters, counts, strict=True):
            windows = torch.from_numpy(np.stack(list(islice(found, count))))
            pooling = task_of(adapter.manifest.problem_type).pool_windows
            rows.append(pool(windows, torch.tensor([count]), pooling)[0].numpy())
        return rows

    @torch.inference_mode()
    def time(self, rows: int, width: int) -> float:
        """Seconds of a forward of the base, before any batch has run."""
        ids = torch.full((rows, width), int(self.model.config.pad_token_id or 0), device=self.device)
        start = time.perf_counter()
        model: Any = self.model.base_model
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0].sum().item()
        return time.perf_counter() - start

    def _inject_adapters(self, adapters: Sequence[ServedAdapter]) -> None:
        for served in {id(a): a for a in adapters}.values():
            for path in served.layout.places:
                if path not in self.replaced:
                    self._replace(path)
            for path in served.heads:
                if path not in self.replaced:
                    self._replace(path, head=True)

    def _replace(self, path: str, head: bool = False) -> None:
        above, _, leaf = path.rpartition(".")
        parent = self.model.get_submodule(above)
        module: Any = getattr(parent, leaf)
        goes_on = base_goes_on(path, self.model.base_model_prefix)
        self.replaced[path] = (
            ServedHead(path, module, self.rows, goes_on) if head else ServedLinear(path, module, self.rows)
        )
        setattr(parent, leaf, self.replaced[path])
        if is_fed_positions(parent, leaf):
            self.mixes = False
