"""The version of a store's layout, in `store.json`: an older one is brought up to date, a newer one refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.errors import ConfigError
from flows.store.files import read_json, write_json

FILE = "store.json"
LAYOUT = 2
# 1: no store.json; done.json and uses.json with whole paths. 2: with it, and paths relative to the store.


def check(root: Path, field: str) -> None:
    """Look at the store's version, and write it where there is none: into a new store and one of the first layout.

    Paths that an older store has written whole are still read, so nothing in it has to be rewritten.

    Args:
        root: the store.
        field: the parameter that it comes from, for the error.

    Raises:
        ConfigError: it was made by a newer version of the project, or the file is unreadable.
        OSError: the store cannot be written to.
    """
    file = root / FILE
    if file.exists():
        layout = known(read_json(file), f"{field}: the store {root}", str(file))
        if layout == LAYOUT:
            return
    write_json(file, {"layout": LAYOUT})


def known(found: Any, what: str, file: str) -> int:
    """The layout that a store's file says.

    Raises:
        ConfigError: it says none, or one that is not known here.
    """
    layout = found.get("layout") if isinstance(found, dict) else None
    if not isinstance(layout, int) or layout < 1:
        raise ConfigError(
            f"{what} says in {file} no layout that is known here. If the store is yours, delete that file: what is in "
            "the store is then looked at anew. Else choose another store."
        )
    if layout > LAYOUT:
        raise ConfigError(
            f"{what} has layout {layout}, and this version of the project knows {LAYOUT} at most: a newer one has made "
            "it. Bring this one up to date, or choose another store."
        )
    return layout
