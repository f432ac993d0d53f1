"""An adapter for others: merged into its base, as ONNX, or on the hub."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raylora.cluster.export.folder import check_output, written
from raylora.cluster.export.rows import rows_of
from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.storage.filesystem import is_remote, plain
from raylora.cluster.storage.run_folder import ADAPTER
from raylora.errors import ConfigError, DataError, ModelError, RayLoraError
from raylora.model.export.facts import MARK, mark
from raylora.model.predictor import Predictor
from raylora.model.tokens import TokenTable
from raylora.records import Say
from raylora.tasks import Task

if TYPE_CHECKING:
    from raylora.model.export.measure import Measured

Kind = Literal["merged", "onnx"]
COPIES = {"merged": 1.1, "onnx": 2.5}  # of the base's weights; ONNX: fp32, int8, and what its making takes


@dataclass(frozen=True)
class Wanted:
    """Args:
    adapter: a run or its adapter, here or on object storage.
    output: a local folder; None = beside the adapter.
    data: rows to measure int8 on; None = the validation rows of the adapter's run.
    """

    adapter: str
    output: str | None = None
    data: str | None = None
    base_model: str | None = None
    trust_remote_code: bool = False


def export(kind: Kind, wanted: Wanted, say: Say) -> Path:
    """Write an export and check it against the adapter.

    Returns:
        its folder.

    Raises:
        RayLoraError: it cannot be made; nothing is left, and an earlier export stays as it was.
    """
    if kind == "onnx":
        from raylora.model.export.runtime import check_installed

        check_installed()
    with adapter_of(wanted) as (folder, place):
        output = check_output(wanted.output or _beside(place, kind))
        predictor = predictor_of(folder, wanted)
        say(f"adapter    {place}  ({predictor.task.problem_type}, base {predictor.base.id})")
        with written(output, round(COPIES[kind] * weights_bytes(predictor))) as part:
            write(kind, predictor, part, wanted.data, say)
    say(f"output     {output}  ({size_in_words(output)})")
    return output


@contextmanager
def adapter_of(wanted: Wanted) -> Generator[tuple[Path, str]]:
    """Its files, here, and where they are kept.

    Raises:
        ModelError: there is no adapter, or it cannot be read.
    """
    address = plain(wanted.adapter)
    try:
        found = folders.find(address)
        with folders.local(found) as folder:
            yield folder, found.path
    except OSError as error:
        raise ModelError(f"adapter {address} cannot be read: {error}") from None


def predictor_of(folder: Path, wanted: Wanted) -> Predictor:
    """Raises:
    ModelError: the adapter is broken, or its base is not to be had.
    """
    return Predictor(folder, wanted.trust_remote_code, wanted.base_model)


def weights_bytes(predictor: Predictor) -> int:
    return sum(p.numel() * p.element_size() for p in predictor.model.parameters())


def write(kind: Kind, predictor: Predictor, folder: Path, data: str | None, say: Say) -> None:
    """Fill an empty folder, its mark last."""
    manifest = predictor.manifest
    measured = _merged(predictor, folder, say) if kind == "merged" else _onnx(predictor, folder, data, say)
    (folder / MARK).write_text(mark(manifest, kind, measured), encoding="utf-8")


def _merged(predictor: Predictor, folder: Path, say: Say) -> dict[str, Any]:
    from raylora.model.export.merged import export_merged

    apart = export_merged(predictor, folder)
    say(f"check      logits of the merged model, loaded by Transformers, are within {apart:.1e} of the adapter's")
    return {"apart": apart}


def _onnx(predictor: Predictor, folder: Path, data: str | None, say: Say) -> dict[str, Any]:
    from raylora.model.export.onnx import export_onnx

    rows = _rows(predictor, data, say)  # before the minute that a graph takes
    model, apart = export_onnx(predictor, folder)
    say(f"check      logits of the fp32 graph in ONNX Runtime are within {apart:.1e} of the adapter's")
    if rows is None:
        return {"apart": apart}
    measured = _measure(model, predictor, folder, *rows)
    for line in measured.lines():
        say(line)
    return {"apart": apart, "measured": asdict(measured)}


def _rows(predictor: Predictor, data: str | None, say: Say) -> tuple[TokenTable, Task] | None:
    """Rows that were named must be there; without those of the adapter's run, nothing is measured."""
    try:
        return rows_of(predictor.manifest, predictor.tokenizer_spec, data)
    except (RayLoraError, OSError) as error:
        if data is not None:
            raise error if isinstance(error, RayLoraError) else DataError(f"{data} cannot be read: {error}") from None
        say(f"warning    what int8 costs is not measured; name rows by --data. The validation rows of its run: {error}")
        return None


def _measure(model: Any, predictor: Predictor, folder: Path, table: TokenTable, task: Task) -> "Measured":
    from raylora.model.export.measure import measure
    from raylora.model.export.onnx import GRAPH, INT8
    from raylora.model.export.runtime import OnnxModel

    models = {"torch": model, "onnx": OnnxModel(folder / GRAPH), "int8": OnnxModel(folder / INT8)}
    return measure(models, table, predictor.tokenizer_spec, task, predictor.manifest)


def _beside(place: str, kind: Kind) -> str:
    """`runs/x/merged` of `runs/x/adapter`, `mine-merged` of `mine`.

    Raises:
        ConfigError: the adapter is on object storage.
    """
    if is_remote(place):
        raise ConfigError(f"adapter {place} is on object storage: name a local folder by --output.")
    folder = Path(place)
    return str(folder.with_name(kind if folder.name == ADAPTER else f"{folder.name}-{kind}"))


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files in a folder, by name."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def size_in_words(folder: Path) -> str:
    found = sizes(folder)
    return f"{len(found)} files, {sum(found.values()) / 1e6:,.1f} MB"
