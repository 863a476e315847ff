"""Running a pipeline of a person's own: each stage as soon as all before it are done, branches side by side."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.base_models.resolve import ResolvedModel
from flows.errors import ConfigError, FinetuneError
from flows.stages.branches import Branches
from flows.stages.explanation import foretold, not_yet
from flows.stages.graph import Node
from flows.stages.pipeline import Model, Pipeline
from flows.stages.stage_task import Outcome
from flows.store.digest import file_digest, is_utf8

MOST_AT_ONCE = 32


@dataclass(frozen=True)
class Surroundings:
    """What all stages of a pipeline share: the base model, if one is needed, and the folder of its data."""

    base: ResolvedModel | None
    data_folder: str


def run_graph(line: Pipeline, nodes: Sequence[Node], shared: Surroundings) -> dict[str, FinetuneError]:
    """Run all stages that can run; what failed, by name. What comes after a failed one is skipped, and says so."""
    sorter = TopologicalSorter({node.name: node.stage.after for node in nodes})
    sorter.prepare()
    by_name = {node.name: node for node in nodes}
    failed: dict[str, FinetuneError] = {}
    with Branches(line.run, line.run.options.at_once or MOST_AT_ONCE) as branches:
        running: dict[Future[Outcome], str] = {}
        while running or sorter.is_active():
            for name in sorter.get_ready():
                running[branches.start(_run, line, by_name[name], shared)] = name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                try:
                    future.result()
                except FinetuneError as error:
                    failed[name] = error
                else:
                    sorter.done(name)
    for node in nodes:
        if lost := sorted(node.before & failed.keys()):
            line.skip(node.name, f"not run: {' and '.join(lost)} failed")
    return failed


def _run(line: Pipeline, node: Node, shared: Surroundings) -> Outcome:
    before = {name: line.outcomes[name] for name in node.before}
    if node.kind == "prepare" and (unmade := not_yet(before)):
        return foretold(line, node.name, node.kind, unmade)
    config = _filled(node.config, before)
    name = node.name
    if node.kind == "prepare":
        return line.prepare(config.sources, config.split, name)
    if node.kind == "shell":
        direct = {one: before[one] for one in node.stage.after}
        files = _digests(node, shared.data_folder)
        return line.shell(node.stage.command, direct, files, shared.data_folder, name)
    dataset, model = before[node.dataset], _model(node.model, before, shared)
    if node.kind == "evaluate":
        return line.evaluate(config, dataset, _model(node.against, before, shared), before[node.model], name)
    training = line.pretrain if node.kind == "pretrain" else line.finetune
    return training(config, dataset, model, name)


def _model(name: str, before: dict[str, Outcome], shared: Surroundings) -> Model:
    if name:
        return before[name]
    assert shared.base is not None
    return shared.base


def _filled(config: BaseModel | None, before: dict[str, Outcome]) -> Any:
    """`{name}` of a stage before becomes its folder, in every text of the settings."""
    if config is None:
        return None

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(part) for key, part in value.items()}
        if isinstance(value, list):
            return [fill(part) for part in value]
        if not isinstance(value, str):
            return value
        return re.sub(r"\{([0-9a-z-]+)\}", lambda m: before[m[1]].artifact.path if m[1] in before else m[0], value)

    return type(config).model_validate(fill(config.model_dump()))


def _digests(node: Node, data_folder: str) -> dict[str, str]:
    """The content of the files that a command says it reads, by their names in the data folder.

    Raises:
        ConfigError: one is not there.
    """
    root = Path(data_folder).expanduser()
    found: dict[str, str] = {}
    for pattern in node.stage.files:
        files = sorted(Path(root, name) for name in glob.glob(pattern, root_dir=root, recursive=True))
        files = [file for file in files if file.is_file()]
        if not files:
            raise ConfigError(f"There is no file {pattern} in {root}, which the stage says it reads.")
        if nameless := [file for file in files if not is_utf8(str(file))]:
            raise ConfigError(f"The name of the file {str(nameless[0])!r} is no UTF-8. Give it another one.")
        found |= {f"data/{file.relative_to(root)}": file_digest(file) for file in files}
    return found
