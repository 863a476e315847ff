"""Artifacts: finished outputs of stages, named by their content, whole or absent."""

from __future__ import annotations

import datetime
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.store.digest import folder_checksums, value_digest
from flows.store.files import read_json, write_json
from flows.store.layout import Store

MANIFEST = "manifest.json"


class Artifact(BaseModel):
    """A finished output: its kind, the digest of its content (64 hex characters) and its place."""

    kind: str
    digest: str
    path: str


def publish(store: Store, kind: str, folder: Path, made_from: dict[str, Any]) -> Artifact:
    """Move a finished output folder into the store, with a manifest of what it is and what it was made from.

    Content that is already there is kept as it is. The move is a rename, so a reader sees all or nothing.
    """
    checksums = folder_checksums(folder)
    digest = value_digest(checksums)
    place = store.artifacts / kind / digest[:24]
    artifact = Artifact(kind=kind, digest=digest, path=str(place))
    if is_whole(artifact):
        shutil.rmtree(folder)
        return artifact
    manifest = {
        "kind": kind,
        "digest": digest,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "made_from": made_from,
        "files": {name: {"sha256": sha, "bytes": (folder / name).stat().st_size} for name, sha in checksums.items()},
    }
    write_json(folder / MANIFEST, manifest)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():  # damaged: put aside what is left, then take its place
        place.rename(place.with_name(f".damaged-{place.name}-{os.getpid()}"))
    folder.rename(place)
    return artifact


def manifest(artifact: Artifact) -> dict[str, Any] | None:
    """The manifest, or None if there is none."""
    found = read_json(Path(artifact.path) / MANIFEST)
    return found if isinstance(found, dict) else None


def is_whole(artifact: Artifact) -> bool:
    """Whether the artifact is there with every file of its manifest, by size (checksums would read all of it)."""
    found = manifest(artifact)
    if found is None or found.get("digest") != artifact.digest:
        return False
    files = [(Path(artifact.path) / name, facts["bytes"]) for name, facts in found["files"].items()]
    return all(file.is_file() and file.stat().st_size == size for file, size in files)
