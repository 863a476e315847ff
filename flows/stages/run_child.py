"""The parent's side of a stage's child process: start it, pass on its log and progress, end it, read its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.ending import to_the_end
from flows.errors import BudgetError, FinetuneError, RunEndedError, TransientError
from flows.progress import Progress
from flows.serving.causes import last_lines
from flows.stages.team_child import clear_errors
from flows.store.files import read_json, write_atomically, write_json

POLL_S = 0.5
GRACE_S = 10.0
# The child shows its progress through us, not with bars of its own.
ENVIRONMENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning",
}


class ChildError(FinetuneError):
    """What a child process said of its failure; it knows whether a retry can help."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class Measured:
    """Where the child keeps what it spends, for which stage, and how many GPUs it was given (a share of one too).

    `used_up` says in words why it must end, if it must: by the file `stop`, if the work looks for it, else at once.
    """

    file: Path
    stage: str
    gpus: float
    used_up: Callable[[], str] = str
    stop: Path | None = None


@dataclass(frozen=True)
class Team:
    """How many processes do the work together: so many on each of so many machines."""

    processes: int = 1
    nodes: int = 1

    @property
    def module(self) -> str:
        """What leads them; one alone needs nobody."""
        if self.nodes > 1:
            return "flows.stages.ray_team"
        return "flows.stages.teams" if self.processes > 1 else "flows.stages.child"


def run_child(
    function: str,
    config: BaseModel,
    inputs: dict[str, str],
    workdir: Path,
    progress: Progress,
    log: Callable[[str], None],
    environment: dict[str, str] | None = None,
    descriptors: tuple[int, ...] = (),
    measured: Measured | None = None,
    team: Team = Team(),
    ending: threading.Event | None = None,
) -> dict[str, Any]:
    """Run `function` ("module:name") in a child process, which inherits the `descriptors`, and return its figures.

    A `team` of several processes does it together; the figures are those of the first of them. All are ended as
    soon as `ending` is set.

    Raises:
        ChildError: the function failed; its message is for people.
        TransientError: the child was killed.
        BudgetError: it was ended because the run may not cost more.
        RunEndedError: it was ended because `ending` was set.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    files = {name: workdir / f"child-{name}" for name in ("request", "progress", "result", "log")}
    for name in ("progress", "result", "log"):
        files[name].unlink(missing_ok=True)
    clear_errors(files["result"])
    if measured is not None and measured.stop is not None:
        measured.stop.unlink(missing_ok=True)
    request = {
        "function": function,
        "config": config.model_dump(mode="json"),
        "inputs": inputs,
        "workdir": str(workdir),
        "progress": str(files["progress"]),
        "result": str(files["result"]),
        "parent": os.getpid(),
        "team": {"processes": team.processes, "nodes": team.nodes},
        "variables": sorted({*ENVIRONMENT, *(environment or {})}),  # names only: values may be secrets
    }
    if measured is not None:
        request["measured"] = {"file": str(measured.file), "stage": measured.stage, "gpus": measured.gpus}
    write_json(files["request"], request)
    with files["log"].open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", team.module, str(files["request"])],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **ENVIRONMENT, **(environment or {})},
            pass_fds=descriptors,
        )
    try:
        _follow(child, files, progress, log, measured, ending or threading.Event())
    finally:
        with to_the_end():
            _end(child)
    return _figures(child.returncode, files["result"], files["log"])


def _follow(
    child: subprocess.Popen[bytes],
    files: dict[str, Path],
    progress: Progress,
    log: Callable[[str], None],
    measured: Measured | None,
    ending: threading.Event,
) -> None:
    asked = measured is None
    progress_tail, log_tail = _Tail(files["progress"]), _Tail(files["log"])
    running = True
    while running:
        running = child.poll() is None
        for line in log_tail.new_lines():
            log(line)
        for line in progress_tail.new_lines():
            report = json.loads(line)
            progress(report["done"], report["total"], report["note"], **report["figures"])
        if running and not asked and measured is not None and (words := measured.used_up()):
            asked = True
            log(words)
            if measured.stop is None:
                raise BudgetError(f"{words} What was finished is kept; run again with a greater budget.")
            write_atomically(measured.stop, words)
        if running and ending.wait(POLL_S):
            raise RunEndedError


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _figures(code: int, result_file: Path, log_file: Path) -> dict[str, Any]:
    result = read_json(result_file)
    if result is None:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        said = [line.strip() for line in last_lines(log_file) if line.strip()] if code > 0 else []
        last = f" It said last: {said[-1][:300]}" if said else ""
        raise TransientError(
            f"The child process of the stage was ended {how} before it was done (out of memory, killed from outside, "
            f"or not able to begin). What it had finished is kept.{last}"
        )
    if "error" in result:
        raise ChildError(result["error"]["message"], result["error"]["retryable"])
    return dict(result["figures"])


class _Tail:
    """Whole new lines of a growing file; a torn last line waits for its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def new_lines(self) -> list[str]:
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        lines = [line.rsplit("\r", 1)[-1].strip() for line in whole.decode("utf-8", "replace").splitlines()]
        return [line for line in lines if line]
