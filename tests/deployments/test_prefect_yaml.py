"""Every shipped recipe fits the flow that it names."""

import importlib

import pytest
import yaml

from deployments.local import CHECKOUT, POOL
from flows.domain_adaptation import domain_adaptation
from flows.training.config import problems

STANZAS = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text("utf-8"))["deployments"]


def test_the_four_recipes_are_there():
    assert [stanza["name"] for stanza in STANZAS] == ["demo", "demo-korean", "gemma-2-2b-it", "nightly"]
    assert all(stanza["work_pool"]["name"] == POOL and stanza["description"] for stanza in STANZAS)


@pytest.mark.parametrize("stanza", STANZAS, ids=lambda stanza: stanza["name"])
def test_a_recipe_fits_its_flow(stanza):
    file, _, name = stanza["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    values = flow.validate_parameters(stanza["parameters"])
    assert not problems(values["finetune"], "finetune")


def test_the_article_s_values_are_in_its_recipe():
    [stanza] = [stanza for stanza in STANZAS if stanza["name"] == "gemma-2-2b-it"]
    values = domain_adaptation.validate_parameters(stanza["parameters"])
    finetune, pretrain = values["finetune"], values["pretrain"]
    assert (pretrain.lora.r, finetune.lora.r, finetune.lora.alpha, finetune.lora.dropout) == (128, 256, 32, 0.05)
    assert (finetune.batch_size, finetune.accumulation, finetune.epochs, finetune.learning_rate) == (2, 4, 3, 2e-4)
    assert (finetune.warmup_steps, finetune.checkpoint_steps, finetune.packing) == (2, 100, False)
    assert len(finetune.lora.target_modules) == 7


def test_the_nightly_schedule_is_off():
    [stanza] = [stanza for stanza in STANZAS if stanza["name"] == "nightly"]
    assert [schedule["active"] for schedule in stanza["schedules"]] == [False]
