"""The run form of the Prefect UI is drawn from the flow's parameters: each field must say what it is."""

import pytest

from flows.domain_adaptation import domain_adaptation

SCHEMA = domain_adaptation.parameters.model_dump()
DEFINITIONS = SCHEMA["definitions"]
FIELDS = [(model, name, field) for model, of in DEFINITIONS.items() for name, field in of.get("properties", {}).items()]


def test_every_parameter_says_what_it_is():
    assert list(SCHEMA["properties"]) == [
        "sources",
        "model",
        "split",
        "pretrain",
        "finetune",
        "evaluation",
        "gate",
        "serve",
        "run",
    ]
    assert all(parameter.get("description") for parameter in SCHEMA["properties"].values())
    assert SCHEMA["required"] == ["sources", "model"]


@pytest.mark.parametrize(("model", "name", "field"), FIELDS, ids=[f"{model}.{name}" for model, name, _ in FIELDS])
def test_every_field_has_a_title_a_sentence_and_a_shape_that_the_form_draws(model, name, field):
    assert field.get("title"), "the form would show the Python name"
    assert field.get("description", "").strip().endswith((".", ")")), field.get("description")
    assert not {"anyOf", "oneOf"} & field.keys(), "unions are drawn as raw JSON, and their errors do not name the field"


@pytest.mark.parametrize("model", DEFINITIONS)
def test_a_misspelt_key_is_refused(model):
    assert DEFINITIONS[model].get("additionalProperties") is False
