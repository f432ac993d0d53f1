"""Writes what this folder holds, by the code of another commit; the tests of it are those that use `old_folders`.

It was written at d59b01d (26 November 2026), before keys and files of runs were renamed:

    mkdir /tmp/old && git archive d59b01d raylora tests | tar x -C /tmp/old
    PYTHONPATH=/tmp/old:/tmp/old/tests python tests/data/old/make.py NEW_FOLDER

`cut` is a run that was interrupted. Paths in the files are relative to the folder.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tiny import save_base

import raylora
from raylora.demo import REVIEWS

COMMAND = [sys.executable, "-c", "import sys; from raylora.cli import main; sys.exit(main())"]
JOB = """\
storage_path: .
data: {train: reviews.jsonl, test: reviews.jsonl, max_length: 24}
model: {base_model: base}
lora: {r: 2}
train: {num_train_epochs: 6, learning_rate: 0.05, bf16: false, prefix_cache_bytes: 1000000}
tune:
  num_samples: 2
  space: {lora.r: {choice: [1, 2]}}
"""
TEXTS = ["Arrived a day early.", "It broke on the second day, and nobody answers.", "Bad, bad, bad.", "Lovely people!"]


def make(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)
    shape = {"hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 32, "layer_norm_eps": 1e-12}
    save_base("bert", Path("base"), vocabulary=160, **shape)
    Path("reviews.jsonl").write_text("".join(REVIEWS.read_text(encoding="utf-8").splitlines(keepends=True)[:24]))
    Path("job.yaml").write_text(JOB)
    subprocess.run([*COMMAND, "train", "job.yaml", "run_name=run"], check=True)
    subprocess.run([*COMMAND, "tune", "job.yaml", "run_name=sweep"], check=True)
    interrupt("train", "job.yaml", "run_name=cut", "train.num_train_epochs=40")
    strip()
    predictions = raylora.load("run/adapter").predict(TEXTS)
    said = [{"text": text, "label": p.label, "scores": p.scores} for text, p in zip(TEXTS, predictions, strict=True)]
    Path("predictions.json").write_text(json.dumps(said, indent=2) + "\n")


def strip() -> None:
    """Remove what nothing reads again, and this machine's paths."""
    for folder in [*Path("run").glob("checkpoint_0*"), Path("sweep/adapter"), Path("sweep/trials")]:
        shutil.rmtree(folder)
    older, _ = sorted(Path("cut").glob("checkpoint_0*"))
    for file in older.iterdir():
        if file.name != "floor.json":  # Ray Train asks of an older checkpoint only whether its folder is there
            file.unlink()
    for name in ("*/*/README.md", "*/*/training_args.bin", "run/checkpoint_*.json", "*/.validate*", "job.yaml"):
        for file in Path().glob(name):
            file.unlink()
    for file in Path().rglob("*.json"):
        file.write_text(file.read_text(encoding="utf-8").replace(os.getcwd(), "."), encoding="utf-8")


def interrupt(*words: str) -> None:
    """Ray Train writes down that a checkpoint is there some two seconds after it is."""
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="")
            if "epoch 20 " in line:
                process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
