"""Keys that were renamed: typed under their old names they work for one release, with a warning."""

import warnings
from typing import Any

RENAMED = {("train", "prefix_cache_bytes"): "frozen_states_cache_bytes"}


class RenamedKeyWarning(FutureWarning):
    """A config key that goes by another name now."""


def new_key(key: str) -> str:
    """A dotted key under its new name."""
    section, _, name = key.partition(".")
    new = RENAMED.get((section, name))
    if new is None:
        return key
    _warn(section, name, new)
    return f"{section}.{new}"


def rename_keys(tree: Any, warn: bool = True) -> Any:
    """The tree of a config with its old keys under their new names; a new name beside its old one is left to fail."""
    if not isinstance(tree, dict):
        return tree
    for (section, old), new in RENAMED.items():
        keys: Any = tree.get(section)
        if isinstance(keys, dict) and old in keys and new not in keys:
            if warn:
                _warn(section, old, new)
            keys = {new if key == old else key: value for key, value in keys.items()}
            tree = {**tree, section: keys}
    return tree


def _warn(section: str, old: str, new: str) -> None:
    message = f"`{section}.{old}` is `{section}.{new}` now; the old name goes with the next release."
    warnings.warn(message, RenamedKeyWarning, stacklevel=3)
