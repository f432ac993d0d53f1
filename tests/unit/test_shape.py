"""The shape of the package: what may import what, and how small a job is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raylora import config
from raylora.config import file as jobfile

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("ray", "torch", "transformers", "peft")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def loaded_by(module: str) -> set[str]:
    """Heavy libraries in a fresh process after this import."""
    code = f"import sys, {module}; print(*({set(HEAVY)} & sys.modules.keys()))"
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_a_job_is_at_most_40_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


def test_there_are_jobs() -> None:
    assert {"train.py", "predict.py", "bench.py"} <= {path.name for path in (ROOT / "jobs").glob("*.py")}


@pytest.mark.parametrize(
    "module",
    ["", ".config", ".config.file", ".errors", ".metrics", ".records", ".tasks", ".evaluation.measure", ".cli"],
)
def test_words_load_no_heavy_library(module: str) -> None:
    assert loaded_by(f"raylora{module}") == set()


def test_reading_files_loads_no_heavy_library() -> None:
    assert loaded_by("raylora.cluster.data.sources") == set()


def test_tasks_that_read_and_tokenize_load_neither_torch_nor_peft() -> None:
    """Each of them would wait 8 s for it."""
    assert loaded_by("raylora.cluster.data.prepare") == {"ray"}


def test_evaluating_loads_no_ray() -> None:
    assert "ray" not in loaded_by("raylora.cluster.evaluate.output")


def test_telling_runs_loads_no_heavy_library() -> None:
    assert loaded_by("raylora.cli.runs") == set()


def test_tokens_load_no_torch() -> None:
    assert "torch" not in loaded_by("raylora.model.tokens")


def test_only_tasks_and_losses_ask_which_task_it_is() -> None:
    """All that differs between tasks is theirs to say."""
    kinds = "single_label_classification|multi_label_classification|regression"
    asks = re.compile(rf"problem_type\)?\s*(==|!=|(not )?in\b)|(==|!=)\s*[\"']({kinds})")
    own = {"tasks", "losses.py"}
    paths = [path for path in (ROOT / "raylora").rglob("*.py") if not own & {path.name, path.parent.name}]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if asks.search(line)
    ]
    assert len(paths) > 100 and found == []


def test_the_rings_import_one_way_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    result = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout
    assert " 0 broken" in result.stdout


def test_only_connect_and_the_command_line_read_the_environment() -> None:
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "raylora").rglob("*.py") if _reads_environment(p)}
    assert files == {"raylora/cluster/session.py", "raylora/cli/main.py"}


def _reads_environment(path: Path) -> bool:
    return re.search(r"os\.(environ|getenv)", path.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lora.rank=8"], "error: 1 fault in the config:\n  lora.rank: unknown key"),
        (["lora.r=8", "--dry-run", "lora.rank=8"], "error: 1 fault in the config:\n  lora.rank: unknown key"),
        (["lora.r=0", "seed=x"], "error: 2 faults in the config:\n"),
        (["gone.yaml"], "error: config file gone.yaml is not there"),
        (["data.train=gone.csv"], "error: gone.csv is not there"),
    ],
)
def test_a_bad_command_line_exits_with_2_and_a_message(words: list[str], message: str) -> None:
    result = run("jobs/train.py", *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr


def test_a_dry_run_prints_the_config_and_loads_no_heavy_library() -> None:
    result = run("-X", "importtime", "jobs/train.py", "lora.r=16", "--dry-run")
    assert result.returncode == 0
    assert "  r: 16\n" in result.stdout
    assert "raylora.config.file" in result.stderr
    assert not re.search(rf"\| +({'|'.join(HEAVY)})$", result.stderr, re.MULTILINE)


def test_the_docs_show_the_config_as_it_is() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    shown = page.split("<!-- config -->\n")[1].split("\n<!-- /config -->")[0]
    assert shown == jobfile.table(), "paste the output of `raylora schema --markdown` into docs/config.md"


def test_every_key_says_what_it_means() -> None:
    assert [key for key, meaning in config.keys().items() if not meaning] == []


@pytest.mark.parametrize("name", ["main-job", "tests"])
def test_the_readme_gives_each_command_as_one_line(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"<!-- {name} -->\n```sh\n(.+)\n```\n", readme)) == 1


def test_the_readme_is_a_front_door() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), f"{page}: {target}"
        assert not heading or heading in _anchors(file), f"{page}: {target}"


def _anchors(page: Path) -> list[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
