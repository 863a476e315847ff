"""Make what a stage's key stands for, on this machine: under the key's lock, with its GPUs, published whole."""

from __future__ import annotations

import json
import pkgutil
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prefect.blocks.system import Secret
from pydantic import BaseModel, ValidationError

from flows.cost import ledger
from flows.cost.budget import used_up
from flows.cost.cost import total
from flows.cost.counter import Counter
from flows.cost.meter import Meter
from flows.errors import BudgetError, ConfigError, DataError, TransientError
from flows.gpus.leases import lease
from flows.progress import Progress
from flows.stages.base_models import bring
from flows.stages.call import StageCall
from flows.stages.former import remember, remembered
from flows.stages.registry import Stage
from flows.stages.resources import (
    StageResources,
    card_problems,
    leases_cards,
    machine_problems,
    plain_variables,
    processes,
    secret_blocks,
    size_gib,
)
from flows.stages.run_child import Measured, Team, run_child
from flows.stages.run_context import RunContext
from flows.store.artifacts import Artifact, damage, manifest, note_use, publish
from flows.store.attempts import Attempt
from flows.store.files import read_json, write_json
from flows.store.layout import DEPENDS, DONE
from flows.training.config import TrainingSection, missing_packages
from flows.training.team import share

Told = Callable[[str], None]
ATTEMPTS = "attempts.txt"  # files of what was spent on the result that is being made, relative to the store


class Maker(BaseModel):
    """Who has made a result, as `RunContext.maker` tells it."""

    run_id: str
    run_name: str
    run_url: str


class Result(BaseModel):
    """What `done.json` of a key holds: the path of the artifact is relative to the store."""

    artifact: Artifact
    figures: dict[str, Any]
    maker: Maker


def make(run: RunContext, call: StageCall, refresh: bool, waiting: Told) -> dict[str, Any]:
    """Do the work under the key's lock, unless another run has just done it, and publish what it made.

    Args:
        run: the run it is for; the result names it.
        call: the stage and what it runs on.
        refresh: make it even though a finished result is there, unless this very run has made that before it died.
        waiting: called with what is waited for (another run, GPUs), and with an empty text when that is over.

    Returns:
        `artifact`, `figures` and `maker` of the result, JSON-able.

    Raises:
        FinetuneError: the work failed, or this machine lacks what the stage needs.
        RunEndedError: the run is being ended.
    """
    workdir = run.store.work(call.key)
    words = "Another run is making the same result; waiting for it."
    with run.store.hold(call.key, partial(waiting, words), run.pause) as attempt:
        waiting("")
        already = finished(run, call.key)
        if already is not None and (not refresh or already["maker"]["run_id"] == run.run_id):
            _clear(workdir)  # a kill may have come in between
            return already
        started = time.monotonic()
        shutil.rmtree(workdir / "output", ignore_errors=True)
        inputs = _inputs(run, call)
        before = _names(run, call)
        run.store.fetch_checkpoint(call.key)
        with run.store.sharing_checkpoints(call.key, attempt):
            figures = _figures(run, call, inputs, attempt, waiting)
        _inputs_are_whole(run, call, before)
        made_from = {"stage": call.name, **call.depends_on, **run.maker()}
        artifact = publish(run.store, call.stage.artifact, workdir / "output", made_from, attempt)
        result = {
            "artifact": artifact.model_dump() | {"path": run.store.relative(Path(artifact.path))},
            "figures": {**figures, "stage_seconds": time.monotonic() - started, "cost": _cost(run, workdir)},
            "maker": run.maker(),
        }
        run.store.share_artifact(Path(artifact.path), attempt)
        with attempt.committing():
            run.store.share_result(call.key, result, remembered(call))
            remember(run.store, call)
            write_json(workdir / DONE, result)  # before anything is removed: killed in between, all would be done again
            _clear(workdir)
        return result


def _clear(workdir: Path) -> None:
    """Remove what is no longer needed of work that is done and noted."""
    for path in workdir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (DONE, DEPENDS):
            path.unlink()


def finished(run: RunContext, key: str, here: bool = True, use: bool = True) -> dict[str, Any] | None:
    """The result that some run has left for this key, if its artifact is still what was written; its path is relative.

    One that was damaged since is told in the log: it is made anew. If it need not be on this machine (`here`), one that
    is in the bucket of the store will do. From here on it is in `use`, and `gc-store` leaves it.
    """
    run.store.fetch_result(key, here)
    result = read_json(run.store.work(key) / DONE)
    if result is None:
        return None
    try:
        Result.model_validate(result)
    except ValidationError:
        run.logger.warning("%s is damaged. The result is made anew.", run.store.work(key) / DONE)
        return None
    artifact = artifact_of(run, result)
    if use:
        note_use(run.store, Path(artifact.path))
    if not here and run.store.elsewhere(artifact.path):
        return result
    wrong = damage(run.store, artifact)
    if not wrong:
        return result
    if run.store.restore(artifact.path):
        run.logger.warning("The artifact %s was damaged: %s. It was taken from the bucket.", artifact.path, wrong)
        return result
    run.logger.warning("The artifact %s is damaged: %s. It is made anew.", artifact.path, wrong)
    return None


def artifact_of(run: RunContext, result: dict[str, Any]) -> Artifact:
    """The artifact of a result, where it is on this machine."""
    found = Artifact.model_validate(result["artifact"])
    return found.model_copy(update={"path": str(run.store.place(found.path))})


def _inputs(run: RunContext, call: StageCall) -> dict[str, Path]:
    """Its input folders on this machine, brought here where they are not."""
    for name, folder in _results(run, call).items():
        note_use(run.store, folder)
        if not run.store.fetch(str(folder)):
            raise TransientError(
                f"{call.name}: its input {name} is neither here nor whole in the store {run.store.location}. "
                "Run again: it is made anew."
            )
    brought = {name: Path(bring(run, call, name).path) for name in call.base_models if name not in call.inputs}
    return call.inputs | brought


def _results(run: RunContext, call: StageCall) -> dict[str, Path]:
    """Those of its inputs that other stages have made."""
    return {name: folder for name, folder in call.inputs.items() if folder.is_relative_to(run.store.artifacts)}


def _names(run: RunContext, call: StageCall) -> dict[Path, set[Path]]:
    """The files in each of these, if a command reads them, which may write there too."""
    folders = _results(run, call).values() if call.stage.name == "shell" else []
    return {folder: {file for file in folder.rglob("*") if not file.is_dir()} for folder in folders}


def _inputs_are_whole(run: RunContext, call: StageCall, before: dict[Path, set[Path]]) -> None:
    """A command can write into what it only reads, and others read that too: nothing is made of it then.

    Raises:
        DataError: it did. What it has added is removed.
    """
    after = _names(run, call)
    for name, folder in _results(run, call).items():
        result = Artifact(kind=folder.parent.name, digest="", path=str(folder))
        digest = str((manifest(result) or {}).get("digest"))
        wrong = damage(run.store, result.model_copy(update={"digest": digest}))
        if added := sorted(after.get(folder, set()) - before.get(folder, set())):
            wrong = wrong or f"{added[0].relative_to(folder)} was added, and is removed"
            for file in added:
                file.unlink(missing_ok=True)
        if wrong:
            raise DataError(
                f"While {call.name} ran, its input {name} was changed: {wrong}. A result of another stage is only to "
                f"be read: copy it into $OUTPUT to change it. Run again: {name} is made anew."
            )


def _figures(
    run: RunContext, call: StageCall, inputs: dict[str, Path], attempt: Attempt, waiting: Told
) -> dict[str, Any]:
    workdir, progress = run.store.work(call.key), fenced(attempt, run.progress(call.name))
    workdir.mkdir(parents=True, exist_ok=True)
    where = call.needs
    found = machine_problems(call.resources, where) + team_problems(call.stage, call.config, call.resources, where)
    if isinstance(call.config, TrainingSection):
        found += missing_packages(call.config, call.name)
    if found:
        raise ConfigError(found)
    if words := _used_up(run):
        raise BudgetError(
            f"{words} {call.name} was not begun; run again with a greater budget, and it goes on from here."
        )
    file = _ledger_file(run, call, workdir)
    stop = workdir / call.stage.stop_file if call.stage.stop_file else None
    if not call.stage.heavy:
        with Meter(file, call.name, own_cpu=time.thread_time, counter=Counter(), every_s=0):
            work = pkgutil.resolve_name(call.stage.function)
            figures: dict[str, Any] = work(call.config, inputs, workdir, progress)
            return figures
    team = Team(processes(call.resources) if call.stage.team else 1, call.resources.nodes)
    environment = call.stage.secrets_of(call.config) | _environment(call)
    with _gpus(run, call, waiting) as (devices, descriptors):
        return run_child(
            call.stage.function,
            call.config,
            {name: str(path) for name, path in inputs.items()},
            workdir,
            progress,
            run.logger.info,
            environment | devices | attempt.environment,
            descriptors,
            Measured(file, call.name, call.resources.gpus * team.nodes, partial(_used_up, run), stop),
            team,
            run.ending,
        )


def team_problems(stage: Stage, config: BaseModel | None, wanted: StageResources, where: str) -> list[str]:
    """Several processes for a stage that is no work of a team, or shares of a batch that cannot be, a line each."""
    if not stage.team:
        asked = {"processes": wanted.processes, "nodes": wanted.nodes}
        return [
            f"{where}.{field}: {count}, but only training is shared between processes."
            for field, count in asked.items()
            if count > 1
        ]
    if isinstance(config, TrainingSection):
        try:
            share(config.batch_size, config.accumulation, processes(wanted) * wanted.nodes)
        except ConfigError as error:
            return [f"{where}.processes: {error}"]
    return []


def fenced(attempt: Attempt, progress: Progress) -> Progress:
    """Progress that ends the work as soon as another attempt has taken it over."""

    def report(done: float, total: float, note: str = "", /, **figures: float) -> None:
        attempt.check()
        progress(done, total, note, **figures)

    return report


def _ledger_file(run: RunContext, call: StageCall, workdir: Path) -> Path:
    """Where this attempt keeps what it spends, and a line in the stage's folder that it has worked there."""
    file = ledger.new_file(run.ledger, call.name)
    with (workdir / ATTEMPTS).open("a", encoding="utf-8") as stream:
        stream.write(f"{file.relative_to(run.store.root)}\n")
    return file


def _used_up(run: RunContext) -> str:
    """Why the run must end, in words; empty if it may go on. All its stages count, wherever they are."""
    limited = run.budget.max_hours or run.budget.max_cost
    return used_up(run.budget, run.prices, ledger.spent(run.ledger)) if limited else ""


def _cost(run: RunContext, workdir: Path) -> dict[str, Any]:
    """What the result has cost: all attempts whose work is in it, those of former runs too."""
    files = (run.store.root / line for line in (workdir / ATTEMPTS).read_text("utf-8").splitlines())
    found = [one.cost for file in files if (one := ledger.read_attempt(file)) is not None]
    return total(found).model_dump()


@contextmanager
def _gpus(run: RunContext, call: StageCall, waiting: Told) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Lease the stage's GPUs on this machine; the child's environment, and the descriptors that it must inherit."""
    wanted = call.resources
    if not leases_cards(wanted):
        yield {}, ()
        return
    if found := card_problems(wanted, call.needs):
        raise ConfigError(found)
    holder, memory_gib = f"{run.run_name} ({call.name})", size_gib(wanted.gpu_memory)
    with lease(wanted.gpus, holder, waiting, memory_gib, pause=run.pause) as got:
        waiting("")
        run.logger.info("%s has GPU %s.", call.name, ", ".join(map(str, got.devices)))
        yield got.environment, got.descriptors


def _environment(call: StageCall) -> dict[str, str]:
    """Variables of the stage's own, those of Secret blocks read here, where they are needed.

    Raises:
        ConfigError: there is no such block.
    """
    values = plain_variables(call.resources.env)
    if call.resources.cpu:
        values = {"OMP_NUM_THREADS": str(max(1, int(call.resources.cpu)))} | values
    return values | {name: secret(block) for name, block in secret_blocks(call.resources.env).items()}


def secret(block: str) -> str:
    """The value of a Prefect Secret block.

    Raises:
        ConfigError: there is no such block.
    """
    try:
        found: Any = Secret.load(block)
    except ValueError as error:
        raise ConfigError(
            f"There is no Prefect Secret block '{block}'. Make it in the Prefect UI under Blocks, or take the line out."
        ) from error
    value = found.get()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\0" in text:
        raise ConfigError(f"The Prefect Secret block '{block}' holds a zero byte, which no variable can have.")
    return text
