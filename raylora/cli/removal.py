"""`raylora runs rm` and `raylora runs prune`: what they remove, said line by line."""

import argparse
import re
from typing import TYPE_CHECKING

from raylora.cli.job import saying_renamed
from raylora.config.file import storage_path
from raylora.errors import ConfigError

if TYPE_CHECKING:
    from raylora.cluster.storage.removal import Removal

AGE = re.compile(r"(\d+)(min|h|d|w)")
SECONDS = {"min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def add_arguments(runs: argparse.ArgumentParser) -> None:
    runs.add_argument(
        "--older-than", metavar="AGE", help="prune: runs not written to for so long (45min, 12h, 30d, 4w)"
    )
    runs.add_argument(
        "--keep", type=int, metavar="N", help="prune: of each finished sweep only the best N trials' folders"
    )
    runs.add_argument("--dry-run", action="store_true", help="rm, prune: only say what would go")


def remove_named(words: list[str], options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: no name, or a name of no run.
    """
    names = [word for word in words if not _is_place(word)]
    if not names:
        raise ConfigError("`raylora runs rm` takes the names of runs: raylora runs rm NAME... [STORAGE_PATH].")
    from raylora.cluster.storage.removal import named

    _carry_out(named(_place(words, options), names), options)


def prune(words: list[str], options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: neither an age nor a number of trials, or both; a word that is no storage path.
    """
    names = [word for word in words if not _is_place(word)]
    if names:
        raise ConfigError(f"`raylora runs prune` takes a STORAGE_PATH with a slash in it, found '{names[0]}'.")
    if (options.older_than is None) == (options.keep is None):
        raise ConfigError("`raylora runs prune` takes either --older-than AGE (30d) or --keep N.")
    if options.keep is not None and options.keep < 1:
        raise ConfigError(f"`--keep` must be at least 1, found {options.keep}: a sweep's best trial stays.")
    from raylora.cluster.storage.removal import beyond, older_than

    place, keep = _place(words, options), options.keep
    found = older_than(place, seconds_of(options.older_than)) if keep is None else beyond(place, int(keep))
    _carry_out(found, options)


def seconds_of(age: str) -> float:
    """Raises:
    ConfigError: no age.
    """
    found = AGE.fullmatch(age)
    if not found:
        raise ConfigError(f"`--older-than` takes a number with min, h, d or w, as 30d, found '{age}'.")
    return int(found[1]) * SECONDS[found[2]]


def size_in_words(size_bytes: int) -> str:
    """In the largest unit that fits, 1,000 bytes a kB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} B"


def _carry_out(removals: "list[Removal]", options: argparse.Namespace) -> None:
    """What a job is at work in stays, and says so.

    Raises:
        ConfigError: some of it stayed.
    """
    from raylora.cluster.storage.removal import is_locked, remove

    freed, kept = 0, list[str]()
    for each in removals:
        size = size_in_words(each.size_bytes)
        if options.dry_run:
            print(f"would remove {each.what}  ({size}{', unless its job is at work' * is_locked(each)})")
        else:
            try:
                remove(each)
            except ConfigError as error:
                kept.append(str(error))
                continue
            print(f"removed {each.what}  ({size})")
        freed += each.size_bytes
    print(f"{'would free' if options.dry_run else 'freed'} {size_in_words(freed)}")
    if kept:
        raise ConfigError("left as it is:\n  " + "\n  ".join(kept))


def _is_place(word: str) -> bool:
    """A path, a config, or the key; a run's name has no slash."""
    return "/" in word or word.endswith((".yaml", ".yml")) or word.startswith("storage_path=")


def _place(words: list[str], options: argparse.Namespace) -> str:
    places = [word for word in words if _is_place(word)]
    if len(places) > 1:
        raise ConfigError(f"one STORAGE_PATH, found {', '.join(places)}.")
    with saying_renamed(options.voice):
        return storage_path(places, options.environ)
