"""Where things lie in a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from flows.errors import ConfigError
from flows.store.attempts import Attempt, take
from flows.store.locks import locked
from flows.store.paths import folder
from flows.store.version import check

ENVIRONMENT_VARIABLE = "FINETUNE_STORE"
MANIFEST = "manifest.json"  # of an artifact: what it is, its files
DONE = "done.json"  # of a key: what its work has made
DEPENDS = "depends.json"  # of a key: from what


def result_path(found: Any) -> str:
    """The path of the artifact in what a `done.json` holds; empty if it holds something else."""
    artifact = found.get("artifact") if isinstance(found, dict) else None
    path = artifact.get("path") if isinstance(artifact, dict) else None
    return path if isinstance(path, str) else ""


class Store:
    """A folder, by default `~/.local/share/prefect-finetune`; ConfigError if it can be none.

    artifacts/<kind>/<digest>/  finished outputs of stages, never changed, with manifest.json
    work/<key>/                 a stage at work: checkpoints and half-made output, from which it goes on; then
                                done.json and depends.json: what it made, and from what
    models/                     converted base models
    results/                    Prefect's records of finished stages, by cache key
    runs/<run id>/              report of a run
    ended/<run id>/             how runs of other machines have ended, from the bucket
    failures/<run id>.json      whether a retry may help a stage that failed in a work pool
    lines/                      the last run that ended well, of each flow and deployment
    watches/                    the data for which watch-data started a run last, of each deployment
    endpoints/                  records of served models
    generations/<key>/          answers of an endpoint to a file of questions
    locks/                      one file a key
    attempts/                   how often work on a key was started (attempts.py)
    verified/                   which artifacts were read and found right (verified.py)
    store.json                  the version of this layout (version.py)
    """

    def __init__(self, root: str = "", field: str = "store") -> None:
        """`field` is the parameter that `root` comes from, for errors."""
        place = root or os.environ.get(ENVIRONMENT_VARIABLE, "") or "~/.local/share/prefect-finetune"
        self.field = field if root or ENVIRONMENT_VARIABLE not in os.environ else ENVIRONMENT_VARIABLE
        if place.startswith(("s3://", "s3-store/")):
            raise ConfigError(f"{self.field}: {place[:200]} is a bucket, and this needs a folder.")
        self.root = folder(place, self.field)
        self.artifacts = self.root / "artifacts"
        self.models = self.root / "models"
        self.works = self.root / "work"
        self.results = self.root / "results"
        self.endpoints = self.root / "endpoints"
        self.generations = self.root / "generations"
        self.locks = self.root / "locks"
        self.attempts = self.root / "attempts"
        self.verified = self.root / "verified"

    def work(self, key: str) -> Path:
        """The working folder of a cache key."""
        return self.works / key

    def run(self, run_id: str) -> Path:
        """The folder of a run's report."""
        return self.root / "runs" / run_id

    def failure(self, run_id: str) -> Path:
        """The file in which a stage's own run says whether a retry may help."""
        return self.root / "failures" / f"{run_id}.json"

    def memo(self, artifact: Path) -> Path:
        """The file that keeps what of an artifact, by its place, was verified."""
        return self.verified / f"{artifact.parent.name}-{artifact.name}.json"

    def place(self, path: str) -> Path:
        """Where something of the store is on this machine, from its path relative to the store, or a whole one."""
        return self.root / path

    def relative(self, path: Path) -> str:
        """The path as any machine understands it: relative to the store if it is below it."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    @contextmanager
    def hold(
        self, key: str, waiting: Callable[[], None], pause: Callable[[float], None] = time.sleep
    ) -> Iterator[Attempt]:
        """Work on a key, alone; calls `waiting` once if somebody else does, and then `pause` between looks."""
        with locked(self.locks / key, waiting, pause=pause):
            yield take(self.attempts / key)

    def watch(self, name: str) -> Path:
        """The file with the data for which a run was started last."""
        return self.root / "watches" / f"{name}.json"

    @property
    def location(self) -> str:
        """Where the store is, for people."""
        return str(self.root)

    def check(self) -> None:
        """Look at the layout's version; a new store and an older one get this one's.

        Raises:
            ConfigError: it is of a newer version of the project, or something else stands where its folders go.
            OSError: the store cannot be written to.
        """
        for name in ("artifacts", "work", "results", "runs", "locks", "attempts", "verified", "failures"):
            if os.path.lexists(self.root / name) and not (self.root / name).is_dir():
                raise ConfigError(
                    f"{self.field}: {self.root / name} is no folder, and a store has one there. Move it away, or "
                    "choose another store."
                )
        check(self.root, self.field)

    # What follows moves things between machines. All that share a folder have everything at once.

    def fetch_result(self, key: str, here: bool) -> None:
        """Bring what another machine has made for a key, and its artifact if that is wanted `here`."""

    def fetch(self, path: str) -> bool:
        """Bring an artifact here, by its path; whether it is here in the end."""
        return self.place(path).exists()

    def elsewhere(self, path: str) -> bool:
        """Whether an artifact is whole, but not on this machine."""
        return False

    def restore(self, path: str) -> bool:
        """Bring another copy of a damaged artifact; whether there was one."""
        return False

    def share_artifact(self, path: Path, attempt: Attempt) -> None:
        """Let other machines have a finished artifact."""

    def share_result(self, key: str, result: dict[str, Any], depends_on: dict[str, Any]) -> None:
        """Let them know that a key's work is done."""

    def share_files(self, paths: list[Path]) -> None:
        """Let them have small files as they are now."""

    def share_run(self, run_id: str) -> None:
        """Let them have a run's report."""

    def ended_runs(self) -> list[Path]:
        """Where the folders of runs are that have ended, by their ids: this machine's, and others' as of now."""
        return [self.root / "runs"]

    def fetch_files(self, paths: list[Path]) -> None:
        """Bring small files that another machine has shared."""

    def fetch_beginning(self, kind: str, beginning: str) -> None:
        """Bring the artifacts of a kind whose names begin so."""

    def fetch_formers(self, stage: str) -> None:
        """Bring what former results of a stage depended on."""

    def fetch_checkpoint(self, key: str) -> None:
        """Bring the newest checkpoint of a training that another machine has begun."""

    def sharing_checkpoints(self, key: str, attempt: Attempt) -> AbstractContextManager[None]:
        """While this lasts, let them have the newest checkpoint of a training."""
        return nullcontext()
