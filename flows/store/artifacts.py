"""Artifacts: finished outputs of stages, named by their content, whole or absent."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.errors import DataError
from flows.store import verified
from flows.store.attempts import Attempt
from flows.store.digest import folder_checksums, is_utf8, value_digest
from flows.store.files import read_json, write_json
from flows.store.layout import MANIFEST, Store
from flows.store.locks import alone


class Artifact(BaseModel):
    """A finished output: its kind, the digest of its content (64 hex characters) and its place."""

    kind: str
    digest: str
    path: str


def publish(
    store: Store, kind: str, folder: Path, made_from: dict[str, Any], attempt: Attempt | None = None
) -> Artifact:
    """Move a finished output folder into the store, with a manifest of what it is and what it was made from.

    Content that is already there is kept as it is. The move is a rename, so a reader sees all or nothing, and of two
    writers one comes first.

    Raises:
        SupersededError: the `attempt` that made it is not the newest any more; nothing is moved.
        DataError: there is something in the folder that could not be checked or moved with it.
    """
    _stands_alone(folder)
    checksums = folder_checksums(folder)
    digest = value_digest(checksums)
    place = store.artifacts / kind / digest[:24]
    artifact = Artifact(kind=kind, digest=digest, path=str(place))
    manifest = {
        "kind": kind,
        "digest": digest,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "made_from": made_from,
        "files": {name: {"sha256": sha, "bytes": (folder / name).stat().st_size} for name, sha in checksums.items()},
    }
    write_json(folder / MANIFEST, manifest)
    place.parent.mkdir(parents=True, exist_ok=True)
    with attempt.committing() if attempt else nullcontext(), alone(lock_of(store, place)):
        if damage(store, artifact):
            if place.exists():  # put aside what is left, then take its place
                place.rename(place.with_name(f".damaged-{place.name}-{time.time_ns()}"))
            folder.rename(place)
            verified.remember(place, list(checksums), store.memo(place))
            return artifact
        with suppress(PermissionError):
            os.utime(place)  # a use: see `note_use`
    shutil.rmtree(folder)
    return artifact


def _stands_alone(folder: Path) -> None:
    """A link that leads out, or to a folder, would be there, and what it leads to no part of the artifact."""
    if (folder / MANIFEST).exists():
        raise DataError(f"{MANIFEST} is the store's own file in every result. Give yours another name.")
    whole = folder.resolve()
    for path in folder.rglob("*"):
        if not is_utf8(path.name):
            raise DataError(f"The name of the file {path.name!r} is no UTF-8. Give it another one.")
        if path.is_symlink() and (
            os.path.isabs(os.readlink(path)) or not path.is_file() or not path.resolve().is_relative_to(whole)
        ):
            raise DataError(
                f"{path.relative_to(folder)} is a link to {os.readlink(path)}. A result is kept, checked and taken to "
                "other machines without what its links lead to: copy that (cp -rL)."
            )


def lock_of(store: Store, place: Path) -> Path:
    """The lock under which an artifact, by its place, comes into the store, is noted as used, and is removed."""
    return store.locks / f"artifact-{place.parent.name}-{place.name}"


def note_use(store: Store, place: Path) -> None:
    """Note that the artifact of that place, if there is one, is used now, before it is looked at.

    Garbage is removed under the same lock and only if it was not used since it was found: so the artifact is gone when
    it is looked at, or it stays. A store that one may only read is noted in nowhere.
    """
    with suppress(OSError), alone(lock_of(store, place)):
        os.utime(place)


def manifest(artifact: Artifact) -> dict[str, Any] | None:
    """The manifest, or None if there is none."""
    found = read_json(Path(artifact.path) / MANIFEST)
    return found if isinstance(found, dict) else None


def damage(store: Store, artifact: Artifact) -> str:
    """What is wrong with the artifact, in words, empty if nothing is: every file is read once, and when it changed."""
    return verified.damage(Path(artifact.path), manifest(artifact), artifact.digest, store.memo(Path(artifact.path)))
