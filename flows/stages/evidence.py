"""What tells how good a model is when it is promoted: the evaluation of a run, with its questions and replies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flows.corpus.row import Row
from flows.errors import ServingError
from flows.serving import records, revisions
from flows.store.digest import value_digest
from flows.store.files import read_json
from flows.store.layout import Store


class Questions:
    """Held-out questions of an evaluation, with what the evaluated model scored on each.

    Attributes:
        folder: of the evaluation's artifact.
        rows: the chosen questions, the same ones every time.
        offline: SemScore of the trained model's reply by row id, -1..1, as it was evaluated.
        embedder, max_tokens: what they were scored with, and how long the replies might be.
    """

    def __init__(self, folder: Path, count: int) -> None:
        """Read the first `count` questions by the digest of their ids.

        Raises:
            ServingError: the folder holds no evaluation.
        """
        import pandas as pd

        settings: Any = (read_json(folder / "manifest.json") or {}).get("made_from", {}).get("config", {})
        try:
            table = pd.read_parquet(folder / "predictions.parquet")
            self.embedder: str = settings["evaluation"]["embedder"]
            self.max_tokens: int = settings["evaluation"]["max_new_tokens"]
        except (OSError, KeyError, ValueError) as error:
            raise ServingError(f"{folder} holds no evaluation whose questions could be asked again: {error}") from error
        self.folder = folder
        found = sorted(table.to_dict("records"), key=lambda record: value_digest(record["id"]))[:count]
        self.rows = [_row(record) for record in found]
        self.offline = {str(record["id"]): float(record["trained_semscore"]) for record in found}


def evaluation_of_run(store: Store, run_id: str) -> Path:
    """The evaluation's folder of a run of domain-adaptation.

    Raises:
        ServingError: this store has no such run, or it did not come as far.
    """
    file = store.run(run_id) / "manifest.json"
    store.fetch_files([file])
    manifest = read_json(file)
    try:
        path = str(manifest["artifacts"]["evaluate"]["path"])
    except (KeyError, TypeError) as error:
        raise ServingError(
            f"The store {store.root} has no evaluation of a run {run_id}. Give the id of a run of domain-adaptation "
            "that came as far as its report."
        ) from error
    # The machine that wrote the manifest may have its store elsewhere.
    tail = re.search(r"artifacts/evaluation/[0-9a-f]{24}$", path)
    return store.place(tail[0]) if tail and store.fetch(tail[0]) else Path(path)


def evaluation_of_current(store: Store, name: str) -> Path | None:
    """The evaluation of the revision that serves under a name; None if none is known."""
    serving = records.readable(store.endpoints, name)
    if serving is None or not serving.revision:
        return None
    try:
        found = revisions.load(store.endpoints, name, serving.revision).evaluation
    except ServingError:
        return None
    return Path(found) if found and Path(found).is_dir() else None


def _row(record: Any) -> Row:
    return Row(
        id=record["id"],
        source="",
        group=record["group"],
        context="",
        question=record["question"],
        instruction=record["instruction"],
        answer=record["target"],
        split="test",
        rung=record["rung"],
    )
