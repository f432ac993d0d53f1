"""The adapters of a table: looked at in the driver, and carried to all that score, who need not see them."""

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.storage.filesystem import plain
from raylora.config import DataSection, Job, ModelSection
from raylora.config.data import Unlabelled, unlabelled
from raylora.errors import ConfigError, ModelError
from raylora.model.base.find import BaseFolder, resolve, weights_digest, whole_name
from raylora.model.base.load import load_tokenizer
from raylora.model.lora.manifest import Manifest, served_base
from raylora.model.serving.adapter import read_files, read_state
from raylora.tasks import Task, Wish, task_of
from raylora.tasks.answers import Kind

ALONE = ""  # the name of `predict.adapter`


@dataclass(frozen=True)
class AdapterCopy:
    """An adapter with its files' bytes by name. `prefix` begins the names of its columns."""

    name: str
    prefix: str
    manifest: Manifest
    digest: str
    files: Mapping[str, bytes]

    @property
    def task(self) -> Task:
        return task_of(self.manifest.problem_type)

    def fields(self, all_scores: bool) -> dict[str, Kind]:
        """The columns of its answers."""
        own = self.task.fields(self.manifest.labels, all_scores)
        return {f"{self.prefix}{name}": kind for name, kind in own.items()}


def take(job: Job) -> list[AdapterCopy]:
    """The adapters of `predict`, in order.

    Raises:
        ConfigError: none is named.
        ModelError: one is not there, or broken.
    """
    own = job.predict
    if own.adapter is None and not own.adapters:
        raise ConfigError("`predict.adapter` names no adapter. Set it to a run or its `adapter` folder.")
    if own.adapter is not None:
        return [_take(ALONE, own.prefix, own.adapter)]
    return [_take(name, f"{own.prefix}{name}_", path) for name, path in own.adapters.items()]


def _take(name: str, prefix: str, path: str) -> AdapterCopy:
    address = plain(path)
    try:
        with folders.local(folders.find(address)) as folder:
            files = read_files(folder)
            read_state(files)
            load_tokenizer(str(folder))
            held = {each.name: each.read_bytes() for each in sorted(folder.iterdir()) if each.is_file()}
    except OSError as error:
        raise ModelError(f"adapter {address} cannot be read: {error}") from None
    return AdapterCopy(name, prefix, files.manifest, files.digest, held)


@contextmanager
def unpacked(adapters: Sequence[AdapterCopy]) -> Generator[list[Path]]:
    """Their folders, here, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="raylora-adapters-") as scratch:
        found = [Path(scratch) / str(i) for i in range(len(adapters))]
        for folder, adapter in zip(found, adapters, strict=True):
            folder.mkdir()
            for name, content in adapter.files.items():
                (folder / name).write_bytes(content)
        yield found


def base_for(adapters: Sequence[AdapterCopy], job: Job) -> tuple[ModelSection, BaseFolder]:
    """The one base of all of them.

    Raises:
        ModelError: it cannot be found, or one was trained on another.
    """
    model = served_base(adapters[0].manifest, job.model)
    base = resolve(model)
    digest = weights_digest(base)
    for adapter in adapters:
        own = adapter.manifest
        if own.base_digest != digest:
            name = f"adapter '{adapter.name}'" if adapter.name else "the adapter"
            raise ModelError(
                f"{name} was trained on {own.base_model} with weights {own.base_digest[:12]}…, but {base.id} in "
                f"{base.path} has {digest[:12]}…. Adapters of one pass share one base, which `model.base_model` names."
            )
    return model.model_copy(update={"base_model": whole_name(model.base_model)}), base


def check_wishes(adapters: Sequence[AdapterCopy], job: Job) -> Wish:
    """What `predict` wants of every adapter's answers.

    Raises:
        ConfigError: an adapter's task has no such setting, or it promises no such accuracy.
    """
    wish = Wish(threshold=job.predict.threshold, min_accuracy=job.predict.min_accuracy)
    for adapter in adapters:
        adapter.task.check(wish, adapter.manifest.learned)
    return wish


def texts_of(adapters: Sequence[AdapterCopy], job: Job) -> Unlabelled:
    """How the texts are read: by the config's columns, or where it is silent by those that the adapter learned from.

    Raises:
        ConfigError: adapters of pairs and of single texts are mixed, or the config says otherwise than they.
    """
    own, trained = job.predict, _trained_on(adapters[0])
    text, pair = trained.get("text_column"), trained.get("text_pair_column")
    kinds = {adapter.manifest.takes_pairs for adapter in adapters} - {None}
    if len(kinds) > 1:
        raise ConfigError("`predict.adapters`: some take pairs of texts, others single ones. Score them apart.")
    default = DataSection().text_column
    text = own.text_column or (job.data.text_column if job.data.text_column != default else text) or default
    pair = own.text_pair_column or job.data.text_pair_column or pair
    if kinds == {True} and pair is None:
        raise ConfigError(
            "the adapter takes pairs of texts: `predict.text_pair_column` must name the column of the second."
        )
    if kinds == {False} and pair is not None:
        raise ConfigError(
            f"the adapter takes single texts, and a pair column is set, '{pair}' (`data.text_pair_column`). Leave it "
            "out."
        )
    return unlabelled(job.data, text, pair)


def _trained_on(adapter: AdapterCopy) -> Mapping[str, str | None]:
    """`data` of the config that the adapter was trained by; nothing where its manifest holds none."""
    return adapter.manifest.config.get("data", {})
