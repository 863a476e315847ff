"""What both flows look at before they start: the same checks, in the words of each flow's own fields."""

import socket
from dataclasses import replace

import pytest

from flows.base_models.resolve import BaseModelConfig
from flows.corpus.ladder import SplitConfig
from flows.corpus.sources.registry import Sources
from flows.errors import ConfigError
from flows.evaluation.config import EvaluationConfig
from flows.pipeline import checked, last_evaluation
from flows.serving.config import ServeConfig
from flows.stages import preflight as before
from flows.stages.graph import OwnStage, nodes
from flows.stages.resources import Resources, StageResources
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.variants import TrainingVariant
from flows.store.layout import Store
from flows.training.config import FinetuneConfig, PretrainConfig

OFF = ServeConfig(enabled=False)
LADDER, ANYWHERE = SplitConfig(), Resources()
MODEL = BaseModelConfig(name="tiny:llama-3")
SOURCES = Sources(terms=[{"path": "sample:trade_en/terms"}])
PREPARE = {"name": "prepare", "kind": "prepare"}
TUNE = {"name": "tune", "kind": "finetune", "after": ["prepare"]}
SCORE = {"name": "score", "kind": "evaluate", "after": ["tune"], "settings": ["embedder=hashed:char-ngrams"]}


@pytest.fixture
def context(tmp_path, monkeypatch):
    """A run without Prefect: neither work pools nor blocks are looked for on a server."""

    def unknown(name, parameter, otherwise=""):
        raise ConfigError(f"{parameter}: there is no OpenAI Endpoint block '{name}'.")

    monkeypatch.setattr("flows.stages.judge.load_block", unknown)

    def of(**options):
        return RunContext(Store(str(tmp_path)), RunOptions(**options), "1", "a", "local")

    return of


@pytest.fixture
def refused(context):
    """What is wrong with a pipeline of these stages."""

    def of(*stages, serve=OFF, split=LADDER, **options):
        with pytest.raises(ConfigError) as caught:
            checked(context(**options), [OwnStage(**one) for one in stages], SOURCES, MODEL, split, serve)
        return caught.value.problems

    return of


@pytest.fixture
def adaptation(context):
    """What is wrong with domain-adaptation and these settings."""

    def of(split=LADDER, finetune=(), evaluation=(), serve=OFF, resources=ANYWHERE, variants=(), **options):
        with pytest.raises(ConfigError) as caught:
            before.preflight(
                context(**options),
                SOURCES,
                split,
                MODEL,
                PretrainConfig(enabled=False),
                FinetuneConfig(**dict(finetune)),
                [TrainingVariant(**one) for one in variants],
                EvaluationConfig(**{"embedder": "hashed:char-ngrams"} | dict(evaluation)),
                serve,
                resources,
            )
        return caught.value.problems

    return of


def test_a_pipeline_that_can_work_passes(context):
    graph = checked(context(), [OwnStage(**one) for one in (PREPARE, TUNE, SCORE)], SOURCES, MODEL, SplitConfig(), OFF)
    assert [node.name for node in graph] == ["prepare", "tune", "score"]


def test_a_tracker_that_is_not_installed_is_named_by_its_stage(refused, adaptation):
    wrong = "report_to: wandb is not installed here. Install it, or take none."
    assert refused(PREPARE, TUNE | {"settings": ["report_to=wandb"]}) == [f"stages: tune: settings.{wrong}"]
    assert adaptation(finetune={"report_to": "wandb"}) == [f"finetune.{wrong}"]
    variants = [{"name": "a", "overrides": ["finetune.report_to=wandb"]}, {"name": "b"}]
    assert adaptation(variants=variants) == [f"variants: a: finetune.{wrong}"]


def test_what_another_machine_needs_is_not_looked_for_here():
    config = FinetuneConfig(report_to="wandb", attention="flash_attention_2")
    there = before.PlannedStage("finetune", config, StageResources(work_pool="gpu"), "finetune", "resources.finetune")
    assert before.stage_problems(there) == []
    assert len(before.stage_problems(replace(there, resources=StageResources()))) == 2


def test_an_embedder_and_a_judge_that_are_not_there_are_named_by_their_stage(refused, adaptation):
    score = SCORE | {"settings": ["embedder=packaged:nothing", "judge=nobody"]}
    embedder, judge = refused(PREPARE, TUNE, score)
    assert embedder.startswith("stages: score: settings.embedder: no packaged embedder 'nothing'. ")
    assert judge == "stages: score: settings.judge: there is no OpenAI Endpoint block 'nobody'."
    embedder, judge = adaptation(evaluation={"embedder": "packaged:nothing", "judge": "nobody"})
    assert embedder.startswith("evaluation.embedder: no packaged embedder 'nothing'. ")
    assert judge == "evaluation.judge: there is no OpenAI Endpoint block 'nobody'."


def test_processes_that_cannot_share_a_stage_are_named_by_their_stage(refused, adaptation):
    alone = "processes: 2, but only training is shared between processes."
    assert refused(PREPARE, TUNE, SCORE | {"resources": {"processes": 2}}) == [f"stages: score: resources.{alone}"]
    assert adaptation(resources=Resources(evaluate=StageResources(processes=2))) == [f"resources.evaluate.{alone}"]
    uneven = TUNE | {"settings": ["batch_size=1", "accumulation=1"], "resources": {"processes": 2}}
    [wrong] = refused(PREPARE, uneven)
    assert wrong.startswith("stages: tune: resources.processes: batch_size x accumulation is 1 sequences a step, ")
    variants = [{"name": name, "overrides": ["finetune.batch_size=1", "finetune.accumulation=1"]} for name in "ab"]
    [wrong] = adaptation(resources=Resources(finetune=StageResources(processes=2)), variants=variants)
    assert wrong.startswith("resources.finetune.processes: batch_size x accumulation is 1 sequences a step, ")


@pytest.mark.parametrize(
    ("split", "setting", "words"),
    [
        ({"protocol": "rows"}, "split.protocol=rows", "the protocol rows has no dev share; take test, or the protocol"),
        ({"dev": 0}, "split.dev=0", "there is no dev share, split.dev is 0. Raise it, or take test."),
    ],
)
def test_a_share_that_the_data_set_will_not_have_is_named(refused, adaptation, split, setting, words):
    score = SCORE | {"settings": [*SCORE["settings"], "split=dev"]}
    [of_all] = refused(PREPARE, TUNE, score, split=SplitConfig(**split))
    [of_its_own] = refused(PREPARE | {"settings": [setting]}, TUNE, score)
    assert of_all == of_its_own
    assert of_all.startswith(f"stages: score: settings.split: {words}")
    [wrong] = adaptation(split=SplitConfig(**split), evaluation={"split": "dev"})
    assert wrong.startswith(f"evaluation.split: {words}")


def test_a_server_that_has_its_model_cannot_be_given_another(refused, adaptation):
    serve = ServeConfig(runtime="external", external={"url": "http://127.0.0.1:9/v1"})
    wrong = ["serve.runtime: external is a server that has its model already; a trained one cannot go there."]
    assert refused(PREPARE, TUNE, SCORE, serve=serve) == wrong
    assert adaptation(serve=serve) == wrong


def test_a_port_in_use_is_named(refused, adaptation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = ServeConfig(variant="transformers", port=port)
        for found in (refused(PREPARE, TUNE, SCORE, serve=serve), adaptation(serve=serve)):
            assert [line for line in found if str(port) in line], found


def test_what_run_says_of_stages_is_refused_where_it_cannot_be_meant(refused):
    found = refused(PREPARE, TUNE, skip=["pretrain"], from_stage="finetune", refresh=["finetune", "evaluate"])
    assert [line.partition(":")[0] for line in found] == ["run.skip", "run.from_stage", "run.refresh"]
    assert found[2] == "run.refresh: no stage is of the kind evaluate."


def test_the_evaluation_that_stands_last_is_reported():
    first, second = SCORE | {"name": "short", "after": ["tune"]}, SCORE | {"name": "long", "after": ["look"]}
    look = {"name": "look", "kind": "shell", "command": "true", "after": ["tune"]}
    for declared, expected in (((first, second), "long"), ((second, first), "short")):
        stages = [OwnStage(**one) for one in (PREPARE, TUNE, look, *declared)]
        graph = nodes(stages, SOURCES, SplitConfig())
        assert last_evaluation(graph, stages).name == expected
    assert last_evaluation(graph[:1], stages) is None
