"""A store that machines share through a bucket.

Stages read and write a local folder, which belongs to this machine alone. What is finished goes to the bucket, and what
another machine has finished comes from there when it is wanted:

artifacts/<kind>/<digest>/            its files, and manifest.json last: where that is, the artifact is whole
work/<key>/done.json, depends.json    what a key's work has made, and from what
work/<key>/checkpoints/               the newest whole checkpoint of a training that is not done
leases/<key>.json                     who works on a key
results/<key>                         Prefect's record of a finished stage
runs/<run id>/, failures/             reports
store.json                            the version of this layout
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.errors import ConfigError
from flows.store import verified
from flows.store.attempts import Attempt, SupersededError, take
from flows.store.bucket import checkpoints, lease
from flows.store.bucket.address import Address
from flows.store.bucket.client import Bucket, BucketError
from flows.store.bucket.folders import DamagedError, pull, push, remove
from flows.store.files import own_word, read_json, write_atomically
from flows.store.layout import DEPENDS, DONE, MANIFEST, Store, result_path
from flows.store.locks import alone, locked
from flows.store.version import FILE, LAYOUT, known

CACHE = "FINETUNE_CACHE"
NOT_SHARED = {"progress.json"}
ENDS = {"report.json", "failure.json"}  # of a run's folder: how it has ended
THREADS = 16

logger = logging.getLogger(__name__)


class SharedStore(Store):
    """A store in a bucket, with its folder on this machine.

    Attributes:
        bucket: the client.
        say: is told, in words, of what is damaged in the bucket.
        lease_s: so long a worker may be silent before another one takes its work over.
    """

    def __init__(self, address: Address, field: str = "store", say: Callable[[str], None] = logger.warning) -> None:
        cache = Path(os.environ.get(CACHE) or "~/.cache/prefect-finetune").expanduser()
        super().__init__(str(cache / address.folder), field)
        self.bucket = Bucket(address)
        self.say = say
        self.lease_s = lease.LEASE_S
        self._seen: dict[str, str | None] = {}

    @property
    def location(self) -> str:
        """Where the store is, for people."""
        return f"{self.bucket.address.url} (here {self.root})"

    def check(self) -> None:
        """Look whether the bucket can be read and written, keeps its conditions, and has a layout that is known.

        Raises:
            ConfigError: it does not; names the field.
        """
        super().check()
        url, layout = self.bucket.address.url, {"layout": LAYOUT}
        try:
            found = self.bucket.read(FILE)
            # What must be refused, because there is one: some servers do not know the condition, and write.
            probe = _json(layout if found is None else layout | {"probe": uuid.uuid4().hex})
            if self.bucket.write_if(FILE, probe, None) is not None and found is not None:
                self.bucket.write(FILE, found.content)
                raise ConfigError(
                    f"{self.field}: the server of {url} does not keep If-None-Match, so two machines could make the "
                    "same artifact at once. Take one that does, as Amazon S3."
                )
        except BucketError as error:
            raise ConfigError(
                f"{self.field}: {error} Look at the address, the endpoint and the keys (AWS_ENDPOINT_URL, "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or an S3 Store block)."
            ) from error
        if found is not None:
            known(_value(found.content), f"{self.field}: the store {url}", f"{url}/{FILE}")

    @contextmanager
    def hold(
        self, key: str, waiting: Callable[[], None], pause: Callable[[float], None] = time.sleep
    ) -> Iterator[Attempt]:
        """Work on a key, alone on this machine and among all that share the bucket."""
        with (
            locked(self.locks / key, waiting, pause=pause),
            lease.leased(self.bucket, _lease(key), waiting, self.lease_s, pause=pause) as ours,
        ):
            yield take(self.attempts / key, ours)

    def fetch_result(self, key: str, here: bool) -> None:
        """Bring what is known of a key's result here, and its artifact if it is wanted `here`.

        What is damaged in the bucket is told and removed there, so that it is made anew.
        """
        done = self.work(key) / DONE
        found = self.bucket.read(f"work/{key}/{DONE}")
        self._seen[key] = found.etag if found else None
        if found is None:
            if done.exists():
                self._share_again(key)
            return
        if not done.exists() or done.read_bytes() != found.content:
            (self.results / key).unlink(missing_ok=True)
            self._fetch_files([f"work/{key}/{DEPENDS}"])
            self._fetch_record(key)
            write_atomically(done, found.content)
        name = result_path(read_json(done))
        if not name:
            self._forget(key)
        elif not self.bucket.has(f"{name}/{MANIFEST}"):
            if not self._push_artifact(name, lambda: None):
                self._forget(key)
        elif here and not self.fetch(name):
            self._forget(key)

    def fetch(self, path: str) -> bool:
        """Bring an artifact here, by its path relative to the store; whether it is here in the end, whole.

        Raises:
            BucketError: the bucket does not answer.
        """
        place = self.place(path)
        name = self.relative(place)
        parts = Path(name).parts
        if len(parts) != 3 or parts[0] != "artifacts":
            return place.exists()
        with alone(self.locks / f"pull-{parts[1]}-{parts[2]}"):
            if (place / MANIFEST).exists():
                return True
            shutil.rmtree(place, ignore_errors=True)
            try:
                manifest = pull(self.bucket, name, place)
            except DamagedError as error:
                self.say(f"The artifact {self.bucket.address.url}/{name} is damaged: {error}. It is made anew.")
                remove(self.bucket, name)
                return False
            if manifest is not None:
                verified.remember(place, list(manifest["files"]), self.memo(place))
            return manifest is not None

    def restore(self, path: str) -> bool:
        """Take an artifact whose copy here is damaged from the bucket anew; whether that could be."""
        place = self.place(path)
        if place.exists():
            place.rename(place.with_name(f".damaged-{place.name}-{own_word()}"))
        return self.fetch(path)

    def elsewhere(self, path: str) -> bool:
        """Whether an artifact is whole in the bucket, but not on this machine; asked after `fetch_result`."""
        return not (self.place(path) / MANIFEST).exists()

    def share_artifact(self, path: Path, attempt: Attempt) -> None:
        """Put a finished artifact into the bucket, whole or not at all.

        Raises:
            SupersededError: another attempt has taken the work over.
            BucketError: the bucket does not answer.
        """
        self._push_artifact(self.relative(path), attempt.check)

    def share_result(self, key: str, result: dict[str, Any], depends_on: dict[str, Any]) -> None:
        """Say in the bucket that a key's work is done, if nobody has said so since it was begun.

        Raises:
            SupersededError: somebody has.
            BucketError: the bucket does not answer.
        """
        self.bucket.write(f"work/{key}/{DEPENDS}", _json(depends_on))
        etag = self.bucket.write_if(f"work/{key}/{DONE}", _json(result), self._seen.get(key))
        if etag is None:
            raise SupersededError(f"Another machine has finished {key} meanwhile; its result is taken.")
        self._seen[key] = etag
        with suppress(BucketError):  # what is left is removed by gc-store
            self.bucket.delete(list(self.bucket.entries(f"work/{key}/checkpoints/")))

    def share_files(self, paths: list[Path]) -> None:
        """Put small files of the store into the bucket, as they are now.

        Raises:
            BucketError: the bucket does not answer.
        """
        for path in paths:
            with suppress(FileNotFoundError):
                self.bucket.upload(path, self.relative(path))

    def share_run(self, run_id: str) -> None:
        """Put a run's report into the bucket; `report.json` last."""
        files = [file for file in self.run(run_id).rglob("*") if file.is_file() and not file.name.startswith(".")]
        files.sort(key=lambda file: file.name == "report.json")
        self.share_files([file for file in files if file.name not in NOT_SHARED])

    def ended_runs(self) -> list[Path]:
        """Where the folders of runs are that have ended: this machine's, and copies of how all in the bucket have.

        The copies have a place of their own: a run's own folder is written by that run alone.

        Raises:
            BucketError: the bucket does not answer.
        """
        here = self.root / "ended"
        names = self.bucket.entries("runs/")
        written = {name: entry.written.timestamp() for name, entry in names.items() if _ends_a_run(name)}
        copies = {name: here / name.removeprefix("runs/") for name in written}
        changed = [name for name, copy in copies.items() if not copy.exists() or copy.stat().st_mtime != written[name]]
        for name, content in self.bucket.read_all(changed).items():
            os.utime(write_atomically(copies[name], content), (written[name],) * 2)
        for gone in {copy for copy in here.glob("*/*") if copy.name in ENDS} - {*copies.values()}:
            gone.unlink(missing_ok=True)  # the bucket has it no more
        return [*super().ended_runs(), here]

    def fetch_files(self, paths: list[Path]) -> None:
        """Bring small files here, those that are in the bucket."""
        self._fetch_files([self.relative(path) for path in paths])

    def fetch_beginning(self, kind: str, beginning: str) -> None:
        """Bring the artifacts of a kind here whose names begin so; for a person who names one."""
        prefix = f"artifacts/{kind}/{beginning}"
        for name in [name for name in self.bucket.entries(prefix) if name.endswith(f"/{MANIFEST}")]:
            self.fetch(name.removesuffix(f"/{MANIFEST}"))

    def fetch_formers(self, stage: str) -> None:
        """Bring what former results of a stage depended on here."""
        names = self.bucket.entries(f"work/{stage}-")
        done = {name.split("/")[1] for name in names if name.endswith(f"/{DONE}")}
        wanted = [
            name
            for key in done
            for name in (f"work/{key}/{DEPENDS}", f"work/{key}/{DONE}")
            if name in names and not self.place(name).exists()
        ]
        self._fetch_files(wanted)
        for name in wanted:  # of equally near ones the newest is named
            with suppress(FileNotFoundError):
                os.utime(self.place(name), (names[name].written.timestamp(),) * 2)

    def fetch_checkpoint(self, key: str) -> None:
        """Bring the newest checkpoint of a training here if it is newer than those of this machine."""
        checkpoints.fetch_newest(self.bucket, _checkpoints(key), self.work(key) / "checkpoints", self.say)

    @contextmanager
    def sharing_checkpoints(self, key: str, attempt: Attempt) -> Iterator[None]:
        """While this lasts, the newest whole checkpoint goes to the bucket."""
        folder = self.work(key) / "checkpoints"
        with checkpoints.CheckpointPusher(self.bucket, _checkpoints(key), folder, attempt, self.say):
            yield

    def _share_again(self, key: str) -> None:
        """A result that is here and no more in the bucket, as after its garbage was removed there."""
        done = self.work(key) / DONE
        name = result_path(read_json(done))
        if not name or not self._push_artifact(name, lambda: None):
            self._forget(key)
            return
        self.share_files([self.work(key) / DEPENDS, self.results / key])
        self._seen[key] = self.bucket.write_if(f"work/{key}/{DONE}", done.read_bytes(), None)

    def _fetch_record(self, key: str) -> None:
        """Prefect's record of a result names itself by its whole path, which is another one here."""
        found = self.bucket.read(f"results/{key}")
        record = _value(found.content) if found else None
        if isinstance(record, dict) and isinstance(record.get("metadata"), dict):
            record["metadata"]["storage_key"] = str(self.results / key)
            write_atomically(self.results / key, json.dumps(record))

    def _push_artifact(self, name: str, check: Callable[[], None]) -> bool:
        """Whether it is in the bucket then; False if it is not here whole either."""
        place = self.place(name)
        manifest = read_json(place / MANIFEST)
        if not isinstance(manifest, dict):
            return False
        if verified.damage(place, manifest, manifest["digest"], self.memo(place)):
            return False
        push(self.bucket, place, name, manifest, check)
        return True

    def _forget(self, key: str) -> None:
        (self.work(key) / DONE).unlink(missing_ok=True)

    def _fetch_files(self, names: list[str]) -> None:
        found = self.bucket.read_all(names)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda item: write_atomically(self.place(item[0]), item[1]), found.items()))


def _ends_a_run(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[2] in ENDS


def _lease(key: str) -> str:
    return f"leases/{key}.json"


def _checkpoints(key: str) -> str:
    return f"work/{key}/checkpoints"


def _value(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
