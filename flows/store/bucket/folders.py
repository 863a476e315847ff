"""Folders in the bucket, whole or absent: the files first, then the manifest, on condition that none is there yet."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flows.store.bucket.client import Bucket
from flows.store.digest import file_digest
from flows.store.files import write_json
from flows.store.layout import MANIFEST

THREADS = 8
TRIES = 2


class DamagedError(Exception):
    """What is in the bucket is not what its manifest says; the text says which files."""


def push(bucket: Bucket, folder: Path, name: str, manifest: dict[str, Any], check: Callable[[], None]) -> bool:
    """Upload the files that the manifest names, then the manifest as `name/manifest.json`.

    Args:
        bucket: where to.
        folder: where from.
        name: of the folder in the bucket.
        manifest: `files`: name -> {sha256, bytes}, and what else it says.
        check: called before the manifest is written; raises if that must not be.

    Returns:
        Whether we have written it; False if it was there already.

    Raises:
        FileNotFoundError: a file went away meanwhile; nothing is there then, as far as a reader sees.
        BucketError: the bucket does not answer.
    """
    if bucket.has(f"{name}/{MANIFEST}"):
        return False
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda file: bucket.upload(folder / file, f"{name}/{file}"), manifest["files"]))
    check()
    content = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
    return bucket.write_if(f"{name}/{MANIFEST}", content, None) is not None


def manifest_of(bucket: Bucket, name: str) -> dict[str, Any] | None:
    """The manifest of a folder in the bucket; None if the folder is not there (whole).

    Raises:
        DamagedError: it is unreadable.
    """
    found = bucket.read(f"{name}/{MANIFEST}")
    if found is None:
        return None
    try:
        manifest = json.loads(found.content)
        dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} is unreadable") from error
    return dict(manifest)


def pull(bucket: Bucket, name: str, place: Path) -> dict[str, Any] | None:
    """Download a folder to `place`, where none is yet, every checksum verified; a reader sees all or nothing.

    Returns:
        The manifest; None if the folder is not in the bucket.

    Raises:
        DamagedError: files are missing or are not what the manifest says, also when read again.
        BucketError: the bucket does not answer.
    """
    manifest = manifest_of(bucket, name)
    if manifest is None:
        return None
    beside = place.with_name(f".pulled-{place.name}-{time.time_ns()}")
    beside.mkdir(parents=True)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            pulling = [
                threads.submit(_pull_file, bucket, f"{name}/{file}", beside / file, facts)
                for file, facts in manifest["files"].items()
            ]
            wrong = [one.result() for one in pulling]
        if any(wrong):
            raise DamagedError(", ".join(words for words in wrong if words))
        write_json(beside / MANIFEST, manifest)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def remove(bucket: Bucket, name: str) -> None:
    """Remove a folder, its manifest first: from then on nobody takes it for whole."""
    bucket.delete([f"{name}/{MANIFEST}"])
    bucket.delete(list(bucket.entries(f"{name}/")))


def _pull_file(bucket: Bucket, name: str, file: Path, facts: dict[str, Any]) -> str:
    for _ in range(TRIES):
        try:
            bucket.download(name, file)
        except FileNotFoundError:
            return f"{file.name} is missing"
        if file.stat().st_size == facts["bytes"] and file_digest(file) == facts["sha256"]:
            return ""
    return f"{file.name} is not what was written"
