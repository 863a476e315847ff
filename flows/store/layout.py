"""Where things lie in a store."""

from __future__ import annotations

import os
from pathlib import Path

from flows.store.paths import folder

ENVIRONMENT_VARIABLE = "FINETUNE_STORE"


class Store:
    """A folder, by default `~/.local/share/prefect-finetune`; ConfigError if it can be none.

    artifacts/<kind>/<digest>/  finished outputs of stages, never changed, with manifest.json
    work/<key>/                 a stage at work: checkpoints and half-made output, from which it goes on; then
                                done.json and depends.json: what it made, and from what
    models/                     converted base models
    results/                    Prefect's records of finished stages, by cache key
    runs/<run id>/              report of a run
    failures/<run id>.json      whether a retry may help a stage that failed in a work pool
    lines/                      the last run that ended well, of each flow and deployment
    watches/                    the data for which watch-data started a run last, of each deployment
    endpoints/                  records of served models
    generations/<key>/          answers of an endpoint to a file of questions
    locks/                      one file a key
    """

    def __init__(self, root: str = "") -> None:
        place = root or os.environ.get(ENVIRONMENT_VARIABLE, "") or "~/.local/share/prefect-finetune"
        self.root = folder(place, "store" if root or ENVIRONMENT_VARIABLE not in os.environ else ENVIRONMENT_VARIABLE)
        self.artifacts = self.root / "artifacts"
        self.models = self.root / "models"
        self.results = self.root / "results"
        self.endpoints = self.root / "endpoints"
        self.generations = self.root / "generations"
        self.locks = self.root / "locks"

    def work(self, key: str) -> Path:
        """The working folder of a cache key."""
        return self.root / "work" / key

    def run(self, run_id: str) -> Path:
        """The folder of a run's report."""
        return self.root / "runs" / run_id

    def failure(self, run_id: str) -> Path:
        """The file in which a stage's own run says whether a retry may help."""
        return self.root / "failures" / f"{run_id}.json"

    def watch(self, name: str) -> Path:
        """The file with the data for which a run was started last."""
        return self.root / "watches" / f"{name}.json"
