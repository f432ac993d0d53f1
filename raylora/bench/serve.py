"""`bench serve`: the endpoint beside Ray Serve's floor, its recipes, plain FastAPI, and the model in process."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import raylora
from raylora.bench import load
from raylora.bench.adapters import file_bytes, make_adapters, measure_growth, touch
from raylora.bench.endpoints import Spec
from raylora.bench.inprocess import Limit, better
from raylora.bench.load import Plan
from raylora.bench.processes import run_alone
from raylora.bench.rows import read_rows
from raylora.bench.served import Running, ask, running
from raylora.bench.standing import Measured, Run, Shape, compare, report
from raylora.bench.verdict import cpu, has_amx, target
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.demo import NEW_SENTENCES, REVIEWS
from raylora.errors import TrainingError
from raylora.records import Say

Part = Literal["floor", "raylora", "mixed", "pipeline", "recipe", "batch", "memory"]
PARTS: tuple[Part, ...] = ("floor", "raylora", "mixed", "pipeline", "recipe", "batch", "memory")
FEW, MANY = 100, 1000
ROWS, ROW_CLIENTS = 32, (1, 8)
BATCHES = ((8, 0.0), (8, 0.002), (8, 0.01), (16, 0.05))  # of facts.md: each is best at some load
TRAIN_ROWS, TEXTS = 256, 2000


@dataclass(frozen=True)
class Server:
    """One line of the table. `folders` of the adapters it is asked for by name; none: it has but one.

    `only` is that one's folder, where its answers mean anything.
    """

    words: str
    command: Callable[[int], list[str]]
    folders: dict[str, str] = field(default_factory=dict)
    only: str | None = None


@dataclass(frozen=True)
class Setup:
    """What all servers share: `few` and `many` are adapters by name, made from `adapter`."""

    job: Job
    scratch: Path
    dtype: str
    adapter: str
    texts_path: str
    few: dict[str, str]
    many: dict[str, str]


def bench(job: Job, parts: Sequence[Part], repeats: int, seconds: float, clients: Sequence[int], say: Say) -> None:
    """Print requests/s, latencies and memory, and how they compare with the targets.

    One server runs at a time, in processes of its own, as does the client; all take turns, `repeats` times; medians,
    ratios within a turn. Texts are those of `data.validation` where that is one parquet file, else the demo's.

    Args:
        job: `serve.adapters`' first is the adapter; where there is none, one is trained in a minute.
        seconds: of each load, after a second's warm-up.
        clients: loads of one text a request.

    Raises:
        TrainingError: a server did not start.
    """
    say(f"cpu        {cpu()}")
    with tempfile.TemporaryDirectory() as scratch:
        setup = prepare(job, parts, Path(scratch), say)
        servers = contenders(setup, parts)
        shapes = [*(Shape(count) for count in clients), *(Shape(count, ROWS) for count in ROW_CLIENTS)]
        if servers:
            say(f"serve      {setup.dtype}, {seconds:g} s each, median of {repeats}")
            limits: list[Limit] = []
            runs: list[Run] = []
            for turn in range(1, repeats + 1):
                limits.append(_limit(setup))
                rates = "  ".join(f"{size}: {rate:.0f}" for size, rate in limits[-1].rows_per_s.items())
                say(f"  turn {turn}  in process, by batch size  {rates} texts/s")
                run: dict[str, Measured] = {}
                for name, server in servers.items():
                    run[name] = _measure(server, setup, shapes, seconds)
                    say(f"  turn {turn}  {server.words:<56} {_rates(run[name])} texts/s")
                runs.append(run)
            for line in report({name: server.words for name, server in servers.items()}, runs, limits, shapes):
                say(line)
            compare(runs, limits, shapes, say)
        if "memory" in parts:
            _memory(setup, seconds, say)


def prepare(job: Job, parts: Sequence[Part], scratch: Path, say: Say) -> Setup:
    """The adapter, its many likenesses where a part needs them, and the texts, all under `scratch`."""
    named = list(job.serve.adapters.values())
    adapter = _folder(named[0]) if named else _train(job, scratch, say)
    texts_path = scratch / "texts.json"
    texts_path.write_text(json.dumps(_texts(job)[:TEXTS]), encoding="utf-8")
    dtype = job.serve.dtype if job.serve.dtype != "auto" else "bfloat16" if has_amx() else "float32"
    sizes = {FEW: {"mixed", "recipe"}, MANY: {"mixed", "memory"}}
    few, many = (
        _likenesses(adapter, size, scratch / f"of-{size}") if users & set(parts) else {}
        for size, users in sizes.items()
    )
    return Setup(job, scratch, dtype, adapter, str(texts_path), few, many)


def _folder(path: str) -> str:
    """Of an adapter, also where `path` is that of its run."""
    inside = Path(path) / "adapter"
    return str(inside if inside.is_dir() else path)


def _likenesses(adapter: str, count: int, root: Path) -> dict[str, str]:
    return {name: str(root / name) for name in make_adapters(Path(adapter), count, root)}


def _train(job: Job, scratch: Path, say: Say) -> str:
    """An adapter of the job's own base and rows, trained for an epoch on a few of them."""
    say(f"train      {TRAIN_ROWS} rows, one epoch: the adapter that is served")
    job = job.replace(
        {
            "storage_path": str(scratch),
            "run_name": "trained",
            "train.num_train_epochs": 1,
            "data.max_samples": TRAIN_ROWS,
            "data.test": None,
        }
    )
    (scratch / "train.yaml").write_text(jobfile.dump(job), encoding="utf-8")
    run = subprocess.run(
        _raylora("train", str(scratch / "train.yaml")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        raise TrainingError(f"the adapter to serve could not be trained:\n{run.stdout[-2000:]}")
    return str(scratch / "trained" / "adapter")


def _texts(job: Job) -> list[str]:
    if isinstance(job.data.validation, str) and job.data.validation.endswith(".parquet"):
        return read_rows(job, "validation")[0]
    return [json.loads(line)["text"] for line in REVIEWS.read_text(encoding="utf-8").splitlines()]


def contenders(setup: Setup, parts: Sequence[Part]) -> dict[str, Server]:
    """All servers of these parts, by short names that `compare` knows."""
    one = {"only": setup.adapter}

    def rival(words: str, spec: Spec, folders: dict[str, str] | None = None) -> Server:
        return Server(words, lambda port: _rival_command(spec, port), folders or {}, spec.adapters.get("only"))

    def ours(words: str, **keys: object) -> Server:
        return Server(words, lambda port: _raylora_command(setup, port, keys), only=setup.adapter)

    def mixed(folders: dict[str, str]) -> Server:
        root = str(Path(next(iter(folders.values()))).parent)
        words = f"raylora serve, {len(folders):,} mixed adapters"
        return Server(words, lambda port: _raylora_command(setup, port, {"adapter_root": root}), folders)

    found: dict[str, Server] = {}
    if "floor" in parts:
        found["floor"] = rival("Ray Serve, an endpoint that does nothing", Spec("floor"))
    if "raylora" in parts or "mixed" in parts:
        found["merged"] = ours("raylora serve, one adapter, merged", adapters=one)
    if "raylora" in parts:
        found["apart"] = ours("raylora serve, one adapter, not merged", adapters=one, merge="off")
    if "mixed" in parts:
        found |= {"few": mixed(setup.few), "many": mixed(setup.many)}
    if "pipeline" in parts:
        words = "FastAPI and transformers' pipeline"
        found["pipeline"] = rival(words, Spec("pipeline", one, setup.dtype))
    if "recipe" in parts:
        words = f"Ray Serve's multiplexing, {FEW} PEFT adapters, fp32"
        found["recipe"] = rival(words, Spec("recipe", setup.few), setup.few)
    if "batch" in parts:
        for size, wait_s in BATCHES:
            words = f"@serve.batch, merged, {size} at most, {1000 * wait_s:g} ms"
            spec = Spec("batch", one, setup.dtype, max_batch_size=size, batch_wait_timeout_s=wait_s, passive=True)
            found[f"batch {size} {wait_s:g}"] = rival(words, spec)
    return found


def _raylora(*words: str) -> list[str]:
    return [sys.executable, "-P", "-c", "import sys; from raylora.cli.main import main; sys.exit(main())", *words]


def _rival_command(spec: Spec, port: int) -> list[str]:
    return [sys.executable, "-P", "-m", "raylora.bench.endpoints", json.dumps(asdict(spec) | {"port": port})]


def _raylora_command(setup: Setup, port: int, keys: Mapping[str, object]) -> list[str]:
    """`raylora serve` with the job's own settings, but for what is compared; nothing kept of an earlier one."""
    own: dict[str, object] = {
        "adapters": {},
        "adapter_root": None,
        "default": None,
        "host": "127.0.0.1",
        "port": port,
        **keys,
    }
    job = setup.job.replace(
        {
            "storage_path": str(setup.scratch / f"served-{port}"),
            "serve.dtype": setup.dtype,
            **{f"serve.{key}": value for key, value in own.items()},
        }
    )
    config = setup.scratch / f"serve-{port}.yaml"
    config.write_text(jobfile.dump(job), encoding="utf-8")
    return _raylora("serve", str(config))


def _limit(setup: Setup) -> Limit:
    """With torch's threads spinning and sleeping, whichever is better: the first on cores of its own, mostly."""

    def measured(passive: bool) -> Limit:
        spec = Spec("limit", {"only": setup.adapter}, setup.dtype, texts_path=setup.texts_path, passive=passive)
        return Limit(**run_alone("raylora.bench.endpoints", json.dumps(asdict(spec))))

    return better(measured(passive=False), measured(passive=True))


def _measure(server: Server, setup: Setup, shapes: Sequence[Shape], seconds: float) -> Measured:
    names = list(server.folders)
    with running(server.command, names[0] if names else None) as up:
        plan = Plan(up.port, setup.texts_path, adapters=names, seconds=seconds)
        if names:
            touch(plan, names)
        off = max((_difference(up, *pair) for pair in _to_check(server)), default=None)
        return Measured(
            {shape: load.run(replace(plan, clients=shape.clients, rows=shape.rows)) for shape in shapes}, off
        )


def _rates(measured: Measured) -> str:
    return "  ".join(f"{one.rows_per_s:6.0f}" for one in measured.loads.values())


def _to_check(server: Server) -> Sequence[tuple[str | None, str]]:
    """An adapter's name and folder: the first and the last that the server is asked for, or its only one."""
    if server.folders:
        return list(server.folders.items())[:: max(len(server.folders) - 1, 1)]
    return [(None, server.only)] if server.only else []


def _difference(up: Running, adapter: str | None, folder: str) -> float:
    answers = ask(up.port, NEW_SENTENCES, adapter)
    own = raylora.load(folder).predict(NEW_SENTENCES)
    return max(
        abs(entry["score"] - prediction.scores[entry["label"]])
        for row, prediction in zip(answers, own, strict=True)
        for entry in row
    )


def _memory(setup: Setup, seconds: float, say: Say) -> None:
    names, root = list(setup.many), Path(next(iter(setup.many.values()))).parent
    say(f"memory     {FEW} and {MANY:,} loaded adapters, {setup.dtype}")

    def command(port: int) -> list[str]:
        return _raylora_command(setup, port, {"adapter_root": str(root)})

    with running(command, names[0]) as up:
        plan = Plan(up.port, setup.texts_path, clients=8, seconds=seconds)
        growth = measure_growth(up.pid, plan, names, FEW)
    own = file_bytes(root, names) / (2 if setup.dtype == "bfloat16" else 1)  # the file is in fp32
    say(
        f"  replica {growth.few_bytes / 2**20:,.0f} and {growth.many_bytes / 2**20:,.0f} MiB: "
        f"{growth.bytes_per_adapter / 2**10:,.0f} KiB for each more; its weights {own / 2**10:,.0f} KiB; "
        f"first request to one {growth.load.p50_ms:.1f} ms (p99 {growth.load.p99_ms:.1f})"
    )
    target(say, "memory per adapter in its own bytes", growth.bytes_per_adapter / own, "<=", 1.2)
