"""A pipeline of a person's own as data: its stages, what each comes after, and what each works on."""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from flows.config import Config
from flows.corpus.ladder import SplitConfig
from flows.corpus.prepare import PrepareConfig
from flows.corpus.sources.registry import Sources
from flows.errors import ConfigError
from flows.evaluation.config import EvaluationConfig
from flows.stages.overrides import checked, lay_over
from flows.stages.resources import LONGEST, StageResources, passable
from flows.stages.variants import NAME
from flows.training.config import FinetuneConfig, PretrainConfig

TRAININGS = ("pretrain", "finetune")


class OwnStage(Config):
    """One stage of a pipeline of your own."""

    name: str = Field(pattern=NAME, title="Name", description="Lower-case letters, digits, dashes.")
    kind: Literal["", "prepare", "pretrain", "finetune", "evaluate", "shell"] = Field(
        default="", title="Kind", description="What it does; empty for a duplicate, which does what the other does."
    )
    like: str = Field(
        default="",
        title="Duplicate of",
        description="Another stage, of which this one takes all that is not said here.",
    )
    after: list[str] = Field(
        default=[], title="After", description="Stages that must be done before; several are a join."
    )
    dataset: str = Field(
        default="", title="Data set of", description="A prepare stage. Empty: the only one among those before it."
    )
    model: str = Field(
        default="",
        title="Model of",
        description="A training: what is trained further, or evaluated. Empty: the nearest before it, else the base "
        "model.",
    )
    against: str = Field(
        default="", title="Compared with", description="For evaluate: the model of a training. Empty: the base model."
    )
    settings: list[str] = Field(
        default=[],
        title="Settings",
        description="Each as field=value: learning_rate=0.0001, lora.r=64. {name} in a value is that stage's folder.",
    )
    command: str = Field(
        default="",
        title="Command",
        description="For shell. The folders of the stages before it are in $INPUT_<NAME>; it leaves files in $OUTPUT.",
    )
    files: list[str] = Field(
        default=[],
        title="Files it reads",
        description="For shell: those of the data folder whose change runs it again.",
    )
    always: bool = Field(default=False, title="Run always", description="Even though a finished result is there.")
    resources: StageResources = Field(
        default=StageResources(), title="Resources", description="What it needs, and in which work pool it runs."
    )


@dataclass(frozen=True)
class Node:
    """A stage with everything said: its settings read, what it works on found.

    `dataset`, `model` and `against` are names of stages; an empty `model` or `against` is the base model.
    """

    stage: OwnStage
    config: BaseModel | None
    before: frozenset[str]
    dataset: str = ""
    model: str = ""
    against: str = ""
    kind: str = field(default="")

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


def nodes(stages: Sequence[OwnStage], sources: Sources, split: SplitConfig) -> list[Node]:
    """The stages in an order in which they can run, checked.

    Raises:
        ConfigError: names that stand twice or are of no stage, a circle, settings that do not fit, a stage that lacks
            what it works on or would have two of it; a line each.
    """
    problems = _names(stages)
    if problems:
        raise ConfigError(problems)
    whole = {stage.name: _duplicated(stage, {one.name: one for one in stages}) for stage in stages}
    try:
        order = list(graphlib.TopologicalSorter({name: stage.after for name, stage in whole.items()}).static_order())
    except graphlib.CycleError as error:
        raise ConfigError(f"stages: they wait for each other in a circle: {' -> '.join(error.args[1])}.") from error
    where = {stage.name: f"stages[{number}]" for number, stage in enumerate(stages)}
    before: dict[str, frozenset[str]] = {}
    found: list[Node] = []
    for name in order:
        stage = whole[name]
        before[name] = frozenset(stage.after).union(*(before[one] for one in stage.after))
        config, wrong = _config(stage, where[name], sources, split)
        node = Node(stage, config, before[name], kind=stage.kind)
        if stage.kind != "prepare" and stage.kind != "shell":
            node, unclear = _connected(node, whole, where[name])
            wrong += unclear
        problems += wrong
        found.append(node)
    if problems:
        raise ConfigError(problems)
    return found


def _names(stages: Sequence[OwnStage]) -> list[str]:
    if not stages:
        return ["stages: there is none. Name at least one, as {name: prepare, kind: prepare}."]
    names = [stage.name for stage in stages]
    problems = [f"stages: {name} stands there twice." for name in sorted({n for n in names if names.count(n) > 1})]
    for number, stage in enumerate(stages):
        where = f"stages[{number}]"
        if not stage.kind and not stage.like:
            problems.append(f"{where}.kind: say what {stage.name} does, or of which stage it is a duplicate (like).")
        for field_name in ("like", "dataset", "model", "against"):
            other = getattr(stage, field_name)
            if other and other not in names:
                problems.append(f"{where}.{field_name}: there is no stage {other}.")
        problems += [f"{where}.after: there is no stage {other}." for other in stage.after if other not in names]
        problems += _likes(stage, stages, where)
    return problems


def _likes(stage: OwnStage, stages: Sequence[OwnStage], where: str) -> list[str]:
    """A duplicate must end at a stage that says what it does, of the same kind."""
    by_name = {one.name: one for one in stages}
    seen, one = {stage.name}, stage
    while one.like in by_name:
        one = by_name[one.like]
        if one.name in seen:
            return [f"{where}.like: {stage.name} is a duplicate of itself."]
        seen.add(one.name)
        if stage.kind and one.kind and stage.kind != one.kind:
            return [f"{where}.kind: {stage.name} is a duplicate of {one.name}, which does {one.kind}."]
    return []


def _duplicated(stage: OwnStage, by_name: dict[str, OwnStage]) -> OwnStage:
    """The stage with what it takes from the one it is a duplicate of."""
    if not stage.like:
        return stage
    other = _duplicated(by_name[stage.like], by_name)
    own = {name: getattr(stage, name) for name in stage.model_fields_set - {"like"} if getattr(stage, name) != ""}
    return other.model_copy(update={**own, "settings": [*other.settings, *stage.settings], "like": ""})


def _config(stage: OwnStage, where: str, sources: Sources, split: SplitConfig) -> tuple[BaseModel | None, list[str]]:
    if stage.kind == "shell":
        problems = [] if stage.command else [f"{where}.command: a shell stage needs one."]
        if not passable(stage.command):
            problems.append(f"{where}.command: it has a zero byte, or more than {LONGEST:,} bytes; put it into a file.")
        problems += _outside(stage.files, where, sources.folder)
        return None, problems + ([f"{where}.settings: a shell stage has none."] if stage.settings else [])
    problems = [f"{where}.command: only a shell stage has one."] if stage.command else []
    default: dict[str, BaseModel] = {
        "prepare": PrepareConfig(sources=sources, split=split),
        "pretrain": PretrainConfig(),
        "finetune": FinetuneConfig(),
        "evaluate": EvaluationConfig(),
    }
    model = default[stage.kind]
    values = model.model_dump()
    problems += lay_over(values, stage.settings, f"{where}.settings", f"a {stage.kind} stage", _EXAMPLES[stage.kind])
    config, wrong = checked(type(model), values, f"{where}.settings")
    return config, problems or wrong


def _outside(patterns: Sequence[str], where: str, data_folder: str) -> list[str]:
    """Files are known by their names in the data folder, so that it may be another one on another machine."""
    root = Path(data_folder).expanduser()
    lost = [one for one in patterns if ".." in Path(one).parts or not Path(root, one).is_relative_to(root)]
    words = "is outside of the data folder. Write the name in it, and name the folder in sources.folder."
    return [f"{where}.files: {one} {words}" for one in lost]


_EXAMPLES = {
    "prepare": "split.dev=0.1",
    "pretrain": "learning_rate=0.0001",
    "finetune": "learning_rate=0.0001",
    "evaluate": "max_new_tokens=64",
}


def _connected(node: Node, whole: dict[str, OwnStage], where: str) -> tuple[Node, list[str]]:
    """What a training or an evaluation works on: as said, else the only one that can be meant."""
    stage, problems = node.stage, []
    for field_name, kinds in (("dataset", ("prepare",)), ("model", TRAININGS), ("against", TRAININGS)):
        other = getattr(stage, field_name)
        if other and (other not in node.before or whole[other].kind not in kinds):
            what = "a prepare stage" if field_name == "dataset" else "a training"
            problems.append(f"{where}.{field_name}: {other} is not {what} before {stage.name}. Add it to after.")
    dataset, unclear = stage.dataset, ""
    if not dataset:
        dataset, unclear = _only(_nearest(node, whole, ("prepare",)), f"{where}.dataset", "data set", stage.name)
        problems += [unclear] if unclear else []
        if not dataset and not unclear:
            problems.append(f"{where}.after: {stage.name} needs a prepare stage before it.")
    model = stage.model
    if not model:
        model, unclear = _only(_nearest(node, whole, TRAININGS), f"{where}.model", "model", stage.name)
        problems += [unclear] if unclear else []
        if stage.kind == "evaluate" and not model and not unclear:
            problems.append(f"{where}.after: {stage.name} needs a training before it.")
    return Node(stage, node.config, node.before, dataset, model, stage.against, stage.kind), problems


def _nearest(node: Node, whole: dict[str, OwnStage], kinds: Sequence[str]) -> list[str]:
    """The closest stages of these kinds, backwards along every path."""
    found: set[str] = set()
    seen: set[str] = set()
    ahead = list(node.stage.after)
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        if whole[name].kind in kinds:
            found.add(name)
        else:
            ahead += whole[name].after
    return sorted(found)


def _only(found: list[str], where: str, what: str, name: str) -> tuple[str, str]:
    if len(found) > 1:
        return "", f"{where}: {name} comes after several ({', '.join(found)}); say whose {what} is meant."
    return (found[0] if found else ""), ""
