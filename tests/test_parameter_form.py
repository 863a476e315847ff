"""The run form of the Prefect UI is drawn from the flow's parameters: each field must say what it is."""

import pytest

from flows.domain_adaptation import domain_adaptation
from flows.explain import explain
from flows.gc_store import gc_store
from flows.generate_with_endpoint import generate_with_endpoint
from flows.issue_token import issue_token
from flows.list_endpoints import list_endpoints
from flows.revoke_token import revoke_token
from flows.roll_back import roll_back
from flows.scale_endpoint import scale_endpoint
from flows.serve_variant import serve_variant
from flows.stop_endpoint import stop_endpoint
from flows.watch_data import watch_data
from flows.watch_endpoints import watch_endpoints

FLOWS = [
    domain_adaptation,
    explain,
    gc_store,
    serve_variant,
    stop_endpoint,
    scale_endpoint,
    roll_back,
    list_endpoints,
    watch_endpoints,
    watch_data,
    generate_with_endpoint,
    issue_token,
    revoke_token,
]
SCHEMAS = {flow.name: flow.parameters.model_dump() for flow in FLOWS}
DEFINITIONS = {model: of for schema in SCHEMAS.values() for model, of in schema["definitions"].items()}
FIELDS = [(model, name, field) for model, of in DEFINITIONS.items() for name, field in of.get("properties", {}).items()]
PARAMETERS = [(flow, name, field) for flow, of in SCHEMAS.items() for name, field in of["properties"].items()]


def test_the_parameters_of_the_main_flow():
    schema = SCHEMAS["domain-adaptation"]
    assert list(schema["properties"]) == [
        "sources",
        "model",
        "split",
        "pretrain",
        "finetune",
        "variants",
        "evaluation",
        "gate",
        "serve",
        "resources",
        "cost",
        "budget",
        "run",
    ]
    assert list(SCHEMAS["explain"]["properties"]) == list(schema["properties"]), "one's parameters fit the other"
    assert schema["required"] == ["sources", "model"]


@pytest.mark.parametrize(("flow", "name", "field"), PARAMETERS, ids=[f"{flow}.{name}" for flow, name, _ in PARAMETERS])
def test_every_parameter_says_what_it_is_and_has_a_shape_that_the_form_draws(flow, name, field):
    assert field.get("description", "").strip().endswith("."), field.get("description")
    assert not {"anyOf", "oneOf"} & field.keys()


def test_a_name_that_is_none_is_refused_by_the_form():
    for flow in ("stop-endpoint", "roll-back", "scale-endpoint", "issue-token", "revoke-token"):
        assert SCHEMAS[flow]["properties"]["name"]["pattern"]
    assert SCHEMAS["roll-back"]["properties"]["to"]["minimum"] == 0
    assert SCHEMAS["scale-endpoint"]["properties"]["replicas"]["minimum"] == 1


@pytest.mark.parametrize(("model", "name", "field"), FIELDS, ids=[f"{model}.{name}" for model, name, _ in FIELDS])
def test_every_field_has_a_title_a_sentence_and_a_shape_that_the_form_draws(model, name, field):
    assert field.get("title"), "the form would show the Python name"
    assert field.get("description", "").strip().endswith((".", ")")), field.get("description")
    assert not {"anyOf", "oneOf"} & field.keys(), "unions are drawn as raw JSON, and their errors do not name the field"


@pytest.mark.parametrize("model", DEFINITIONS)
def test_a_misspelt_key_is_refused(model):
    assert DEFINITIONS[model].get("additionalProperties") is False
