"""Our finetune stage, from process start to merged model, against a bare TRL script with the same settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from flows.progress import silent
from flows.stages.run_child import ENVIRONMENT, run_child
from flows.training.config import FinetuneConfig
from tests.benchmarks.rows import Row, compare
from tests.benchmarks.training_data import CHECKOUT, demo_inputs, demo_parameters

NAME = "finetune-stage"
WHERE = "wall time of a child process: load, train a third of an epoch, merge, save"
REPEATS = 3


def measure(workdir: Path) -> list[Row]:
    """Three runs each, in turns."""
    inputs = demo_inputs(workdir / "data")
    settings = {**demo_parameters()["finetune"], "epochs": 0.34, "checkpoint_steps": 1000}
    section = FinetuneConfig.model_validate(settings)
    ours, other = [], []
    for _ in range(REPEATS):
        shutil.rmtree(workdir / "ours", ignore_errors=True)
        started = time.monotonic()
        texts = {name: str(path) for name, path in inputs.items()}
        run_child("flows.training.finetune:run", section, texts, workdir / "ours", silent, lambda line: None)
        ours.append(time.monotonic() - started)
        other.append(_bare(section, inputs, workdir / "other"))
    return [compare(NAME, WHERE, "s", ours, other, "<= 1.05", lambda ratio: ratio <= 1.05)]


def _bare(section: FinetuneConfig, inputs: dict[str, Path], output: Path) -> float:
    shutil.rmtree(output, ignore_errors=True)
    request = {"section": section.model_dump(mode="json"), "output": str(output)}
    request |= {name: str(path) for name, path in inputs.items()}
    command = [sys.executable, "-m", "tests.benchmarks.bare_trl", json.dumps(request)]
    started = time.monotonic()
    subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True)
    return time.monotonic() - started
