"""What a name has served: a file for every promotion, so that any kept one can be served again.

endpoints/<name>/revisions/<number>.json
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.errors import ServingError
from flows.serving.config import ServeConfig
from flows.store.files import write_atomically

KEPT = 5  # former ones, beside the one that serves


class Revision(BaseModel):
    """One promotion of a name.

    `evaluation` is the folder of the evaluation whose questions tell how good the model is, empty if none is known;
    `again` the number of the revision that a roll-back took up again, else 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    promoted: str
    model_dir: str
    model_uri: str = ""
    evaluation: str = ""
    config: ServeConfig
    run_id: str = ""
    run_url: str = ""
    again: int = 0

    def same(self, config: ServeConfig, model_dir: str) -> bool:
        """Whether it is that model with those settings."""
        return (self.config, self.model_dir) == (config, model_dir)


def numbers(folder: Path, name: str) -> list[int]:
    """Numbers of the kept revisions of a name, rising."""
    stems = [path.stem for path in _folder(folder, name).glob("*.json")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal())


def load(folder: Path, name: str, number: int) -> Revision:
    """One revision.

    Raises:
        ServingError: it is not kept, or its file is damaged or none.
    """
    path = _folder(folder, name) / f"{number}.json"
    try:
        return Revision.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        kept = ", ".join(map(str, numbers(folder, name))) or "none"
        raise ServingError(f"Revision {number} of {name} is not kept. Kept are: {kept}.") from None
    except OSError as error:
        raise ServingError(f"{path} cannot be read ({error.strerror}). Take another one.") from error
    except ValidationError as error:
        problem = error.errors()[0]
        raise ServingError(
            f"{path} is no revision ({'.'.join(map(str, problem['loc']))}: {problem['msg']}). Take another one."
        ) from error


def readable(folder: Path, name: str, number: int) -> Revision | None:
    """One revision, or None if it is not kept or damaged."""
    try:
        return load(folder, name, number)
    except ServingError:
        return None


def keep(folder: Path, revision: Revision, serving: int) -> int:
    """Write the revision that is about to serve and drop the oldest; `serving` is the number of the one until now.

    Returns:
        Its number: the next free one, or `serving` if that is the same model with the same settings.
    """
    kept = numbers(folder, revision.config.name)
    current = readable(folder, revision.config.name, serving)
    if current and current.same(revision.config, revision.model_dir):
        return serving
    number = max([serving, *kept]) + 1
    replace(folder, revision.model_copy(update={"number": number}))
    for old in kept[:-KEPT]:
        with contextlib.suppress(OSError):  # one that cannot be dropped is no reason not to serve
            (_folder(folder, revision.config.name) / f"{old}.json").unlink()
    return number


def replace(folder: Path, revision: Revision) -> None:
    """Write a revision under its number, over what is there."""
    path = _folder(folder, revision.config.name) / f"{revision.number}.json"
    write_atomically(path, revision.model_dump_json(indent=2))


def amend(folder: Path, name: str, number: int, config: ServeConfig) -> None:
    """Give a kept revision settings that change nothing of what runs, as how it is watched."""
    replace(folder, load(folder, name, number).model_copy(update={"config": config}))


def forget(folder: Path, name: str, number: int) -> None:
    """Drop a revision that did not come to serve."""
    (_folder(folder, name) / f"{number}.json").unlink(missing_ok=True)


def _folder(folder: Path, name: str) -> Path:
    return folder / name / "revisions"
