"""Every shipped recipe fits the flow that it names."""

import importlib

import pytest
import yaml

from deployments.local import CHECKOUT, POOL
from flows.domain_adaptation import domain_adaptation
from flows.training.config import problems

STANZAS = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text("utf-8"))["deployments"]
STAGE = {
    "name": "finetune",
    "kind": "finetune",
    "config": {},
    "inputs": {},
    "digests": {},
    "key": "finetune-0",
    "resources": {},
    "store": "",
    "run": {"run_id": "1", "run_name": "a", "line": "demo"},
}
# What a person must say when starting the run.
ASKED = {
    "explain/demo": {"sources": {"tables": [{"path": "a.csv"}]}, "model": {"name": "tiny:llama-3"}},
    "run-stage/local": {"request": STAGE},
    "serve-variant/local": {"model": {"folder": "/models/a"}},
    "stop-endpoint/local": {"name": "demo"},
    "roll-back/local": {"name": "demo"},
    "scale-endpoint/local": {"name": "demo", "replicas": 2},
    "issue-token/local": {"name": "demo", "token_name": "nightly"},
    "revoke-token/local": {"name": "demo", "token_name": "nightly"},
    "generate-with-endpoint/local": {"endpoint": {"name": "demo"}, "rows": "questions.jsonl"},
}


def flow_of(stanza):
    file, _, name = stanza["entrypoint"].partition(":")
    return getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)


def full_name(stanza):
    return f"{flow_of(stanza).name}/{stanza['name']}"


RECIPES = [stanza for stanza in STANZAS if flow_of(stanza) is domain_adaptation]


def test_the_deployments_are_there():
    assert [full_name(stanza) for stanza in STANZAS] == [
        "domain-adaptation/demo",
        "domain-adaptation/demo-pools",
        "domain-adaptation/demo-korean",
        "domain-adaptation/gemma-2-2b-it",
        "domain-adaptation/nightly",
        "watch-data/every-ten-minutes",
        "pipeline/example",
        "explain/demo",
        "run-stage/local",
        "gc-store/local",
        "serve-variant/local",
        "stop-endpoint/local",
        "roll-back/local",
        "scale-endpoint/local",
        "issue-token/local",
        "revoke-token/local",
        "list-endpoints/local",
        "list-runs/local",
        "generate-with-endpoint/local",
        "watch-endpoints/every-minute",
    ]
    assert all(stanza["work_pool"]["name"] == POOL and stanza["description"] for stanza in STANZAS)


@pytest.mark.parametrize("stanza", RECIPES, ids=full_name)
def test_a_recipe_fits_its_flow(stanza):
    values = domain_adaptation.validate_parameters(stanza["parameters"])
    assert not problems(values["finetune"], "finetune")


@pytest.mark.parametrize("stanza", [s for s in STANZAS if s not in RECIPES], ids=full_name)
def test_another_deployment_fits_its_flow(stanza):
    asked = ASKED.get(full_name(stanza), {})
    assert flow_of(stanza).validate_parameters({**stanza["parameters"], **asked})
    required = set(flow_of(stanza).parameters.required or [])
    assert set(asked) <= required <= {*asked, *stanza["parameters"]}


def test_the_article_s_values_are_in_its_recipe():
    [stanza] = [stanza for stanza in STANZAS if stanza["name"] == "gemma-2-2b-it"]
    values = domain_adaptation.validate_parameters(stanza["parameters"])
    finetune, pretrain = values["finetune"], values["pretrain"]
    assert (pretrain.lora.r, finetune.lora.r, finetune.lora.alpha, finetune.lora.dropout) == (128, 256, 32, 0.05)
    assert (finetune.batch_size, finetune.accumulation, finetune.epochs, finetune.learning_rate) == (2, 4, 3, 2e-4)
    assert (finetune.warmup_steps, finetune.checkpoint_steps, finetune.packing) == (2, 100, False)
    assert len(finetune.lora.target_modules) == 7


@pytest.mark.parametrize("name", ["nightly", "every-ten-minutes", "every-minute"])
def test_schedules_are_off_and_one_run_at_a_time(name):
    [stanza] = [stanza for stanza in STANZAS if stanza["name"] == name]
    assert [schedule["active"] for schedule in stanza["schedules"]] == [False]
    assert stanza["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_runs_wait_for_one_another_in_their_queue_and_nothing_that_a_run_waits_for_does():
    queues = {flow_of(stanza).name: set() for stanza in STANZAS}
    for stanza in STANZAS:
        queues[flow_of(stanza).name].add(stanza["work_pool"].get("work_queue_name"))
    assert queues.pop("domain-adaptation") == queues.pop("pipeline") == {"runs"}
    assert set.union(*queues.values()) == {None}
