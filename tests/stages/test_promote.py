"""What a promotion says of its checks; that it asks, refuses and moves is met in end_to_end/test_promotion.py."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from blocks.openai_endpoint import OpenAIEndpoint
from flows.endpoint_client.load import LoadFigures
from flows.errors import ServingError
from flows.reporting.contract import CheckReport
from flows.serving import records
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ExternalRecord
from flows.stages import external, load_check, promote, serve
from flows.stages.serve import Served
from flows.stages.stage_task import StageError
from flows.store.layout import Store
from tests.stages.test_endpoint_target import endpoint


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(store=Store(str(tmp_path)), run_id="r", run_url="", logger=logging.getLogger("run"))


@pytest.fixture
def artifacts(monkeypatch):
    """What was shown, by its description."""
    found = {}
    monkeypatch.setattr(
        promote, "create_markdown_artifact", lambda text, key, description: found.update({description: text})
    )
    return found


def checked(monkeypatch, error=None):
    def checked(run, config, model, own, checks):
        checks.append(CheckReport(name="healthy", passed=True, words="at once", seconds=1))
        if error:
            raise error
        return endpoint()

    monkeypatch.setattr(promote, "_checked", checked)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, "1 check passed"),
        (
            StageError("serve", "The front does not answer.\nLog: x"),
            "ended by an error after 1 check passed: The front does not answer; what served before goes on serving",
        ),
    ],
)
def test_a_promotion_that_ended_in_an_error_is_not_told_as_passed(run, artifacts, monkeypatch, error, verdict):
    checked(monkeypatch, error)
    if error:
        with pytest.raises(StageError):
            promote.promote(run, ServeConfig(), Path(), None, [])
    else:
        assert promote.promote(run, ServeConfig(), Path(), None, []) == endpoint()
    assert list(artifacts) == [verdict]


def test_what_was_promoted_is_so_even_if_nobody_can_show_it(run, monkeypatch, caplog):
    def down(*_, **__):
        raise ConnectionError("the API is away")

    checked(monkeypatch)
    monkeypatch.setattr(promote, "create_markdown_artifact", down)
    assert promote.promote(run, ServeConfig(), Path(), None, []) == endpoint()
    assert "The page of the promotion could not be shown: the API is away" in caplog.text


def test_a_current_model_that_does_not_answer_is_a_check_skipped(run, monkeypatch, caplog):
    def step(run, name, work):
        if name == "question-current":
            raise StageError("serve", "http://a/v1 stopped answering")
        return ["a reply"]

    monkeypatch.setattr(promote, "step", step)
    monkeypatch.setattr(promote, "Questions", lambda folder, count: SimpleNamespace(rows=[]))
    promotion = SimpleNamespace(config=ServeConfig(), current=endpoint(), candidate=endpoint())
    checks = []
    promote._ask_questions(run, promotion, Path(), own=False, checks=checks)
    (check,) = checks
    assert (check.name, check.verdict) == ("not worse than the current model", "skipped")
    assert check.words == "the current model does not answer: http://a/v1 stopped answering"
    assert "not worse than the current model: skipped. the current model does not answer" in caplog.text


@pytest.mark.parametrize(("own", "took"), [(False, [5]), (True, [2, 3])])
def test_the_comparison_took_as_long_as_the_answers_that_no_other_check_has(run, monkeypatch, own, took):
    seconds = {"question-candidate": 2.0, "question-current": 3.0}
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)

    def step(run, name, work):
        clock.now += seconds[name]
        return ["a reply"]

    found = SimpleNamespace(passed=True, reason="as good")
    monkeypatch.setattr(promote, "time", clock)
    monkeypatch.setattr(promote, "step", step)
    monkeypatch.setattr(promote, "compare", lambda *_: found)
    monkeypatch.setattr(promote, "check_against_offline", lambda *_: found)
    questions = SimpleNamespace(rows=[], offline={}, embedder="")
    monkeypatch.setattr(promote, "Questions", lambda folder, count: questions)
    promotion = SimpleNamespace(config=ServeConfig(), current=endpoint(), candidate=endpoint())
    checks = []
    promote._ask_questions(run, promotion, Path(), own=own, checks=checks)
    assert [check.seconds for check in checks] == took


def test_the_key_of_what_serves_now_is_there_before_it_is_asked(run, monkeypatch):
    block = OpenAIEndpoint(base_url="https://llm.example.org/v1", model="big", api_key="sk-1")
    monkeypatch.setattr(external, "load_block", lambda name, parameter: block)
    monkeypatch.setattr(external.os, "environ", environ := {})
    record = ExternalRecord(url=block.base_url, block="gate-way")
    records.save(run.store.endpoints, endpoint(name="theirs", runtime="external", process=record))

    def ask(*_):
        assert "sk-1" in environ.values()
        raise ServingError("asked")

    monkeypatch.setattr(serve, "promote", ask)
    with pytest.raises(ServingError, match="asked"):
        serve.serve_model(run, ServeConfig(name="theirs"), Path(), None, Served())


def figures(errors=0, ttft_s=0.25):
    known = {"requests": 8, "seconds": 2.0, "ttft_p50_s": ttft_s, "ttft_p99_s": ttft_s}
    return LoadFigures(errors=errors, tokens_per_s=0.0 if ttft_s is None else 40.0, **known)


@pytest.mark.parametrize(
    ("current", "words"),
    [
        (None, ""),
        (figures(), "; the current model: 40.0 tokens/s, first token within 0.25 s (p99), no request failed"),
        (figures(3), "; the current model: 40.0 tokens/s, first token within 0.25 s (p99), 3 of 8 requests failed"),
        (figures(8, None), "; the current model: 8 of 8 requests failed, so there is nothing to measure"),
    ],
)
def test_the_load_run_tells_of_each_what_failed(current, words):
    own = "40.0 tokens/s, first token within 0.25 s (p99), no request failed"
    assert load_check._words(figures(), current) == own + words


@pytest.mark.parametrize(
    ("front", "names", "strategy", "passed"),
    [
        (True, ("/models/a", "/models/b"), "canary", False),
        (True, ("/models/a", "/models/b"), "replace", True),
        (True, ("trade", "trade"), "canary", None),
        (False, ("/models/a", "/models/b"), "replace", None),
    ],
)
def test_a_name_that_clients_do_not_know_is_told_and_shares_no_traffic(front, names, strategy, passed):
    current, candidate = (SimpleNamespace(model=name, front=SimpleNamespace() if front else None) for name in names)
    config = ServeConfig(promotion={"strategy": strategy}, front={"enabled": True})
    check = promote.name_check(SimpleNamespace(current=current, candidate=candidate, config=config))
    assert (check.passed if check else None) is passed
    if check:
        assert "clients ask for /models/a, the candidate answers to /models/b only" in check.words
