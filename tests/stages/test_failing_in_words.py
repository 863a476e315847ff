"""Flows that end with words for people, whatever they are given and whatever the machine refuses."""

import logging
from functools import partial

import pytest

from flows import explain as explaining
from flows import gc_store as collecting
from flows import watch_data as watching
from flows.base_models.resolve import BaseModelConfig
from flows.corpus.sources.registry import Sources
from flows.domain_adaptation import domain_adaptation
from flows.explain import explain
from flows.gc_store import gc_store
from flows.generate_with_endpoint import generate_with_endpoint
from flows.pipeline import pipeline
from flows.stages import endpoints
from flows.stages.endpoint_target import EndpointChoice
from flows.stages.graph import OwnStage
from flows.stages.run_context import RunOptions
from flows.watch_data import watch_data

TINY = {"sources": Sources(), "model": BaseModelConfig(name="tiny:llama-3")}
SHELL = OwnStage(name="a", kind="shell", command="true")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(endpoints, "create_markdown_artifact", lambda *_, **__: None)
    monkeypatch.setattr(collecting, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(watching, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(watching, "parameters_of", lambda deployment: {})


@pytest.mark.parametrize(
    ("run", "field"),
    [
        (lambda store: gc_store.fn(store=store), "store"),
        (lambda store: watch_data.fn("a/b", [store], store=store), "store"),
        (lambda store: generate_with_endpoint.fn(EndpointChoice(name="a"), "rows.csv", store=store), "store"),
        (lambda store: explain.fn(**TINY, run=RunOptions(store=store)), "run.store"),
        (lambda store: domain_adaptation.fn(**TINY, run=RunOptions(store=store)), "run.store"),
        (lambda store: pipeline.fn([SHELL], run=RunOptions(store=store)), "run.store"),
    ],
)
def test_a_store_that_can_be_none(run, field):
    state = run("/etc/passwd")
    assert (state.is_failed(), state.message) == (True, f"{field}: '/etc/passwd' is no folder. Give the path of one.")


@pytest.mark.parametrize(
    ("run", "module", "name"),
    [
        (gc_store.fn, collecting.garbage, "find"),
        (partial(watch_data.fn, "a/b", ["/etc/passwd"]), watching.changes, "load"),
    ],
)
@pytest.mark.parametrize(
    ("number", "words"),
    [(5, "[Errno 5] why: '/a'."), (28, "the disk is full; free some space and run again: [Errno 28] why: '/a'.")],
)
def test_a_file_that_the_machine_refuses(tmp_path, monkeypatch, run, module, name, number, words):
    monkeypatch.setattr(module, name, _refuse(number))
    (tmp_path / "artifacts").mkdir()
    state = run(store=str(tmp_path))
    assert (state.is_failed(), state.message) == (True, words)


def test_a_place_that_is_no_store_is_made_none_to_look_for_garbage(tmp_path, monkeypatch):
    state = gc_store.fn(store=str(tmp_path / "mistyped"))
    words = f"{tmp_path / 'mistyped'} is no store: nothing has been made there yet."
    assert (state.is_failed(), state.message) == (True, f"store: {words}")
    monkeypatch.setenv("FINETUNE_STORE", str(tmp_path / "new"))
    state = gc_store.fn()
    assert (state.is_completed(), state.message.startswith("Nothing to remove: ")) == (True, True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "failed" / "work" / "shell-abc" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(collecting, "create_table_artifact", lambda *_, **__: None)
    state = gc_store.fn(store=str(tmp_path / "failed"))
    assert state.message.startswith("Would remove 0 of the store's artifacts"), "nothing was ever finished there"


def test_a_file_that_the_machine_refuses_to_an_explanation(tmp_path, monkeypatch):
    monkeypatch.setattr(explaining, "preflight", _refuse(5))
    state = explain.fn(**TINY, run=RunOptions(store=str(tmp_path)))
    assert (state.is_failed(), state.message) == (True, "[Errno 5] why: '/a'.")


def _refuse(number):
    def refuse(*_, **__):
        raise OSError(number, "why", "/a")

    return refuse
