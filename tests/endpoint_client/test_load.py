"""A load run over real HTTP, and what a comparison of two says."""

import pytest

from flows.endpoint_client.load import WARM_UP, LoadFigures, compare_load, load_run
from flows.endpoint_client.request import Request
from tests.endpoint_client.conftest import KEY
from tests.endpoint_client.fake_endpoint import asked

PROMPTS = [Request(id=str(n), messages=[{"role": "user", "content": f"question {n}"}]) for n in range(4)]
PLAIN = [Request(id="p", prompt="go on")]


def figures(**values):
    return LoadFigures(
        **{
            "requests": 100,
            "errors": 0,
            "seconds": 10,
            "tokens_per_s": 100,
            "ttft_p50_s": 0.1,
            "ttft_p99_s": 0.2,
            **values,
        }
    )


@pytest.mark.parametrize(
    ("prompts", "usage", "tokens"), [(PROMPTS, True, 100), (PROMPTS, False, 5), (PLAIN, True, 100)]
)
def test_a_run_counts_tokens_as_the_server_does_or_the_parts_of_the_stream(fake, target, prompts, usage, tokens):
    fake.reply, fake.usage = lambda words: "a b c d e f g", usage
    found = load_run(target, prompts, concurrency=3, requests=10, max_tokens=5)
    assert (found.requests, found.errors, found.first_error) == (10, 0, "")
    assert len(fake.requests) == 10 + WARM_UP
    assert fake.most_under_way <= 3
    assert {(body["stream"], body["max_tokens"]) for body in fake.requests} == {(True, 5)}
    assert found.tokens_per_s * found.seconds == pytest.approx(10 * tokens)
    assert 0 < found.ttft_p50_s <= found.ttft_p99_s < found.seconds


def test_prompts_are_asked_in_turn(fake, target):
    load_run(target, PROMPTS, concurrency=1, requests=6, max_tokens=1)
    assert [asked(body)[-1] for body in fake.requests[WARM_UP:]] == ["0", "1", "2", "3", "0", "1"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (500, "Error code: 500"),
        (429, "Error code: 429"),
        ("hang up", "the stream broke off"),
        (b"<html>Welcome</html>", "the answer was no stream of the API"),
        (b'{"choices": []}', "the answer was no stream of the API"),
    ],
)
def test_every_error_counts_and_none_is_asked_again(fake, target, fault, words):
    fake.fault, fake.message = lambda number, body: fault if number % 5 == 4 else None, KEY
    found = load_run(target, PROMPTS, concurrency=2, requests=20, max_tokens=5)
    assert len(fake.requests) == 20 + WARM_UP
    assert found.errors == 4
    assert words in found.first_error
    assert KEY not in found.first_error
    assert found.ttft_p99_s > 0


def test_a_run_in_which_nobody_answers_has_no_times(fake, target):
    fake.fault = lambda number, body: 500
    found = load_run(target, PROMPTS, concurrency=2, requests=5, max_tokens=5)
    assert (found.errors, found.ttft_p50_s, found.ttft_p99_s, found.tokens_per_s) == (5, None, None, 0)


def test_a_run_without_prompts_is_refused(target):
    with pytest.raises(ValueError, match="at least one prompt"):
        load_run(target, [], concurrency=1, requests=1, max_tokens=1)


@pytest.mark.parametrize(
    "values", [{}, {"ttft_p99_s": 0.24, "tokens_per_s": 80}, {"ttft_p99_s": 0.01, "tokens_per_s": 999}]
)
def test_within_the_tolerance_nothing_speaks_against_it(values):
    assert compare_load(figures(**values), figures(), 0.2) == []
    assert compare_load(figures(**values), None, 0.2) == []


def test_slower_beyond_the_tolerance_is_said_with_the_figures():
    assert compare_load(figures(ttft_p99_s=0.25, tokens_per_s=79), figures(), 0.2) == [
        "load: the slowest first token in a hundred took 0.250 s; the current one's 0.200 s and the tolerance of 20 % "
        "allow 0.240 s",
        "load: 79.0 tokens/s; the current one's 100.0 and the tolerance of 20 % allow no fewer than 80.0",
    ]


def test_an_error_of_the_candidate_is_one_too_many_and_one_of_the_current_helps_nobody():
    bad = figures(errors=1, first_error="Error code: 500")
    assert compare_load(bad, None, 9) == ["load: 1 of 100 requests failed, none may; the first: Error code: 500"]
    assert compare_load(figures(tokens_per_s=79), figures(errors=1), 0.2)
    silent = figures(errors=100, ttft_p50_s=None, ttft_p99_s=None, first_error="x", tokens_per_s=0)
    assert compare_load(figures(tokens_per_s=1), silent, 0.2) == []
    assert len(compare_load(silent, figures(), 0.2)) == 1
