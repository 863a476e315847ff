"""Where things lie in a store."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "FINETUNE_STORE"


class Store:
    """A folder, by default `~/.local/share/prefect-finetune`.

    artifacts/<kind>/<digest>/  finished outputs of stages, never changed, with manifest.json
    work/<key>/                 a stage at work: checkpoints and half-made output, from which it goes on
    models/                     converted base models
    results/                    Prefect's records of finished stages, by cache key
    history/                    what each stage last depended on, to say what changed
    runs/<run id>/              report of a run
    endpoints/                  records of served models
    generations/<key>/          answers of an endpoint to a file of questions
    locks/                      one file a key
    """

    def __init__(self, root: str = "") -> None:
        place = root or os.environ.get(ENVIRONMENT_VARIABLE, "") or "~/.local/share/prefect-finetune"
        self.root = Path(place).expanduser().resolve()
        self.artifacts = self.root / "artifacts"
        self.models = self.root / "models"
        self.results = self.root / "results"
        self.endpoints = self.root / "endpoints"
        self.generations = self.root / "generations"
        self.locks = self.root / "locks"

    def work(self, key: str) -> Path:
        """The working folder of a cache key."""
        return self.root / "work" / key

    def history(self, line: str, stage: str) -> Path:
        """The file with what a stage of a line of runs (a deployment) last depended on."""
        return self.root / "history" / line / f"{stage}.json"

    def run(self, run_id: str) -> Path:
        """The folder of a run's report."""
        return self.root / "runs" / run_id
