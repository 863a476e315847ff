"""A store with many artifacts and many former runs, and how fast it takes a big artifact."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.stages.call import StageCall
from flows.stages.explanation import look
from flows.stages.former import remembered
from flows.stages.run_context import RunContext, RunOptions
from flows.store import garbage
from flows.store.artifacts import publish
from flows.store.files import write_json
from flows.store.layout import DEPENDS, DONE, Store
from flows.training.config import FinetuneConfig
from tests.benchmarks.rows import Row, compare

NAME = "store"
LIST = "everything of the store that nobody needs, as gc-store lists it, of 10,000 artifacts; the other: `find` alone"
EXPLAIN = "whether a stage would run, and why, against the nearest of so many former results; the other: `find` alone"
WRITE = "1 GiB in 4 files into the store, checksums and manifest included; the other: a copy, and its checksums"
ARTIFACTS = 10_000
FORMERS = 1_000
BAR_S = 2.0
BAR_RATIO = 1.15
TIMES = 3
SIZE = 2**28
FILES = 4


def measure(workdir: Path) -> list[Row]:
    """All on the disk of the temporary folder; the small stores first."""
    many, few = _filled(workdir / "many", ARTIFACTS), _filled(workdir / "few", FORMERS)
    return [
        _below("store-list", LIST, many, lambda: garbage.find(many, 20, 30)),
        _below("store-explain-10000", EXPLAIN, many, lambda: _explained(many)),
        _below("store-explain-1000", EXPLAIN, few, lambda: _explained(few)),
        _write(workdir),
    ]


def _below(name: str, where: str, store: Store, ours: Callable[[], Any]) -> Row:
    mine, others = [], []
    for _ in range(TIMES):
        mine.append(_seconds(ours))
        others.append(_seconds(lambda: sum(1 for _ in os.walk(store.root))))
    row = compare(name, where, "s", mine, others, f"median < {BAR_S:.0f} s")
    return row.model_copy(update={"holds": row.ours < BAR_S})


def _write(workdir: Path) -> Row:
    store, source = Store(str(workdir / "store")), workdir / "source"
    source.mkdir()
    for number in range(FILES):
        with (source / f"{number}.safetensors").open("wb") as stream:
            for _ in range(SIZE // 2**20):
                stream.write(os.urandom(2**20))
    ours, other = [], []
    target, output = workdir / "copy", workdir / "output"
    for _ in range(TIMES):
        other.append(_seconds(lambda: _copied_with_checksums(source, target)))
        shutil.rmtree(target)
        ours.append(_seconds(lambda: _stored(store, source, output)))
        shutil.rmtree(store.artifacts)
    return compare(
        "store-write", WRITE, "s", ours, other, f"ratio <= {BAR_RATIO}", lambda ratio: bool(ratio <= BAR_RATIO)
    )


def _copied_with_checksums(source: Path, target: Path) -> list[str]:
    shutil.copytree(source, target)
    found = []
    for file in sorted(target.iterdir()):
        with file.open("rb") as stream:
            found.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return found


def _stored(store: Store, source: Path, output: Path) -> None:
    """As a stage does: it writes its output folder, which then becomes the artifact."""
    shutil.copytree(source, output)
    publish(store, "model", output, {})


def _call(rate: float) -> StageCall:
    return StageCall("finetune", FinetuneConfig(learning_rate=rate), {}, {"dataset": "d", "base_model": "b"})


def _filled(root: Path, count: int) -> Store:
    """A store with that many artifacts of former trainings, which differ in one setting; 40 days old."""
    store = Store(str(root))
    store.check()
    pattern = _call(0.5)
    depends = json.dumps(remembered(pattern))
    when = time.time() - 40 * garbage.DAY_S
    for number in range(count):
        name = hashlib.sha256(str(number).encode()).hexdigest()
        place = store.artifacts / "model" / name[:24]
        place.mkdir(parents=True)
        (place / "model.safetensors").write_text(str(number))
        files = {"model.safetensors": {"sha256": name, "bytes": len(str(number))}}
        write_json(place / "manifest.json", {"kind": "model", "digest": name, "files": files})
        work = store.work(f"finetune-{name[:40]}")
        work.mkdir(parents=True)
        rate = (number + 1) / (count + 1)
        (work / DEPENDS).write_text(depends.replace('"learning_rate": 0.5', f'"learning_rate": {rate}'))
        made = {"kind": "model", "digest": name, "path": f"artifacts/model/{name[:24]}"}
        maker = {"run_id": str(number), "run_name": f"run-{number}", "run_url": "", "time": f"2026-01-01T{number:06}"}
        write_json(work / DONE, {"artifact": made, "figures": {}, "maker": maker})
        for path in (place, work, work / DONE):
            os.utime(path, (when, when))
    return store


def _explained(store: Store) -> None:
    run = _Quiet(store, RunOptions(), "1", "explain", "local")
    found = look(run, _call(0.123))
    assert "learning_rate" in found.why, found.why


class _Quiet(RunContext):
    """A run outside of Prefect."""

    @property
    def logger(self) -> logging.Logger:
        return logging.getLogger(NAME)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
