"""Many requests over real HTTP: what comes back, what is asked again, what ends the batch, and what is kept."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import pytest

from deployments.local import CHECKOUT
from flows.endpoint_client import batch
from flows.endpoint_client.batch import complete
from flows.endpoint_client.errors import NoAnswerError, RefusedError
from flows.endpoint_client.request import BatchOptions, Request
from flows.endpoint_client.target import Target
from tests.endpoint_client.conftest import KEY
from tests.endpoint_client.fake_endpoint import asked


def silent(count):
    pass


def questions(count, start=0):
    return [
        Request(id=f"r{n}", messages=[{"role": "user", "content": f"question {n}"}])
        for n in range(start, start + count)
    ]


def asked_words(fake):
    return Counter(asked(body) for body in fake.requests)


def test_completions_come_in_order_with_tokens_and_cut_off_ones_are_told(fake, target):
    fake.reply = lambda words: " ".join(["word"] * (int(words.split()[-1]) + 1))
    counts = []
    found = complete(target, questions(20), BatchOptions(max_tokens=15, concurrency=4), None, counts.append)
    assert [one.id for one in found] == [f"r{n}" for n in range(20)]
    assert [one.tokens for one in found] == [min(n + 1, 15) for n in range(20)]
    assert [one.truncated for one in found] == [n >= 15 for n in range(20)]
    assert {one.prompt_tokens for one in found} == {2}
    assert {one.error for one in found} == {""}
    assert counts == list(range(1, 21))
    assert fake.keys == {f"Bearer {KEY}"}
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in fake.requests} == {("fake", 15, 0)}


def test_a_prompt_goes_to_servers_without_chat_and_a_format_is_passed_on(fake, target):
    form = {"type": "json_object"}
    requests = [Request(id="a", prompt="go on"), Request(id="b", messages=[{"role": "user", "content": "x"}])]
    requests[1] = requests[1].model_copy(update={"response_format": form})
    found = complete(target, requests, BatchOptions(), None, silent)
    assert [one.text for one in found] == ["You asked: go on", "You asked: x"]
    assert sorted(str(body.get("response_format")) for body in fake.requests) == ["None", str(form)]


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}])
def test_a_request_is_either_chat_or_prompt(body):
    with pytest.raises(ValueError, match="either messages or a prompt"):
        Request(id="x", **body)


def test_a_server_that_counts_no_tokens_leaves_them_unknown(fake, target):
    fake.usage = False
    [found] = complete(target, questions(1), BatchOptions(), None, silent)
    assert (found.tokens, found.prompt_tokens) == (None, None)


def test_so_many_are_under_way_at_a_time(fake, target):
    fake.delay_s = 0.05
    complete(target, questions(12), BatchOptions(concurrency=3), None, silent)
    assert fake.most_under_way == 3


def test_equal_requests_are_asked_once_unless_they_say_again(fake, target):
    one = questions(1)[0]
    twin, again = one.model_copy(update={"id": "twin"}), one.model_copy(update={"id": "other", "again": 1})
    counts = []
    found = complete(target, [one, twin, again], BatchOptions(concurrency=1), None, counts.append)
    assert [answer.id for answer in found] == ["r0", "twin", "other"]
    assert len(fake.requests) == 2
    assert counts == [2, 3]


@pytest.mark.parametrize("fault", [500, 502, 503, 429, 408, 409, "hang up", b"<html>Bad gateway</html>", b"null"])
def test_one_fault_in_five_answers_costs_nothing_but_time(fake, target, fault):
    fake.fault = lambda number, body: fault if number % 5 == 1 else None
    found = complete(target, questions(40), BatchOptions(), None, silent)
    assert [one.text for one in found] == [f"You asked: question {n}" for n in range(40)]
    assert len(fake.requests) > 40


def test_the_pause_is_the_one_that_the_server_asks_for(fake, target):
    fake.headers = {"Retry-After": "1"}
    fake.fault = lambda number, body: 429 if number == 0 else None
    [found] = complete(target, questions(1), BatchOptions(), None, silent)
    assert (found.error, len(fake.requests)) == ("", 2)
    assert found.seconds >= 1


@pytest.mark.parametrize("wish", ["100000", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_who_asks_for_a_day_is_not_waited_for(fake, target, wish):
    fake.headers = {"Retry-After": wish}
    fake.fault = lambda number, body: 429
    with pytest.raises(NoAnswerError, match="is overloaded: Error code: 429"):
        complete(target, questions(1), BatchOptions(), None, silent)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, "the API key is refused"), (403, "not for"), (404, "model 'fake'")],
)
def test_a_wrong_key_or_model_fails_at_once_whatever_failures_are_allowed(fake, target, status, why):
    fake.fault, fake.message = lambda number, body: status, f"not for {KEY}"
    with pytest.raises(RefusedError, match=why) as refused:
        complete(target, questions(200), BatchOptions(failures_allowed=1), None, silent)
    assert fake.url in str(refused.value)
    assert KEY not in str(refused.value)
    assert len(fake.requests) <= 16


@pytest.mark.parametrize("page", [b"<html>Welcome</html>", b"[]", b"null", b"{torn", b'{"choices": 3}'])
def test_a_url_that_is_no_such_api_is_said(fake, target, page):
    fake.fault = lambda number, body: page
    with pytest.raises(RefusedError, match=f"{fake.url} answers, but not as an OpenAI-compatible API"):
        complete(target, questions(3), BatchOptions(), None, silent)
    assert len(fake.requests) <= 9


def too_long(number, body):
    return 400 if asked(body) in ("question 2", "question 7") else None


def test_a_refused_request_is_kept_with_its_error_and_not_asked_again(fake, target, tmp_path):
    fake.fault, fake.message = too_long, f"the prompt is too long, {KEY}"
    options, kept = BatchOptions(failures_allowed=0.2), tmp_path / "kept.jsonl"
    for _ in range(2):
        found = complete(target, questions(10), options, kept, silent)
        assert [one.id for one in found if one.error] == ["r2", "r7"]
        assert "too long" in found[2].error
        assert len(fake.requests) == 10
    assert KEY not in kept.read_text()
    words = rf"left 2 of 10 requests without a reply, .* too long.*delete {kept} to ask again\) \(request 'r[27]'\)"
    with pytest.raises(RefusedError, match=words):
        complete(target, questions(10), BatchOptions(failures_allowed=0.1), kept, silent)
    assert len(fake.requests) == 10


def test_one_refusal_is_one_too_many_where_none_is_allowed_and_names_its_request(fake, target, tmp_path):
    fake.fault, fake.message = too_long, "the prompt is too long"
    with pytest.raises(RefusedError, match=r"refuses the request with the model 'fake': .*too long.*\(request 'r2'\)"):
        complete(target, questions(200), BatchOptions(concurrency=2), tmp_path / "kept.jsonl", silent)
    assert len(fake.requests) < 10
    answered = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert {"r0", "r1", "r2"} <= {line["id"] for line in answered}


def test_what_stays_overloaded_is_counted_and_asked_again_by_the_next_run(fake, target, tmp_path):
    fake.fault = lambda number, body: 503 if asked(body) == "question 4" else None
    options, kept = BatchOptions(failures_allowed=0.1, retries=2), tmp_path / "kept.jsonl"
    found = complete(target, questions(10), options, kept, silent)
    assert [one.error[:14] for one in found if one.error] == ["is overloaded:"]
    assert asked_words(fake)["question 4"] == 3
    fake.fault = lambda number, body: None
    assert not [one for one in complete(target, questions(10), options, kept, silent) if one.error]
    assert asked_words(fake)["question 4"] == 4
    assert len(fake.requests) == 13


def test_an_endpoint_that_answers_nobody_is_not_asked_a_thousand_times(fake, target):
    fake.fault = lambda number, body: 500
    with pytest.raises(NoAnswerError, match="is overloaded: Error code: 500"):
        complete(target, questions(1000), BatchOptions(failures_allowed=1, retries=1), None, silent)
    assert len(fake.requests) < 100


def test_a_slow_answer_is_waited_for_so_long_and_no_longer(fake, target):
    fake.delay_s = 0.3
    assert complete(target, questions(1), BatchOptions(timeout_s=5), None, silent)[0].error == ""
    with pytest.raises(NoAnswerError, match=r"gave no answer within 0.05 s \(request 'r0'\)"):
        complete(target, questions(1), BatchOptions(timeout_s=0.05, retries=1), None, silent)


def test_nobody_there_is_said_with_the_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(NoAnswerError, match=f"{url} stopped answering: Connection error"):
            complete(
                Target(base_url=url, model="m"),
                questions(50),
                BatchOptions(failures_allowed=1, retries=2),
                None,
                silent,
            )


def test_an_answer_without_a_choice_is_a_failure_unless_it_counts_as_silence(fake, target):
    fake.fault = lambda number, body: b'{"error": "content filter"}'
    with pytest.raises(RefusedError, match="answered without a choice"):
        complete(target, questions(1), BatchOptions(), None, silent)
    [found] = complete(target, questions(1), BatchOptions(), None, silent, accept_silence=True)
    assert (found.text, found.error) == ("", "")


def test_half_a_letter_from_the_server_can_be_kept(fake, target, tmp_path):
    fake.reply = lambda words: "cut \ud83d"
    kept = tmp_path / "kept.jsonl"
    [found] = complete(target, questions(1), BatchOptions(), kept, silent)
    assert found.text == "cut ?"
    assert complete(target, questions(1), BatchOptions(), kept, silent) == [found]


def test_another_model_length_or_temperature_is_asked_anew_and_another_address_is_not(fake, target, tmp_path):
    kept = tmp_path / "kept.jsonl"
    complete(target, questions(1), BatchOptions(), kept, silent)
    complete(target, questions(1), BatchOptions(concurrency=1, retries=1, timeout_s=9), kept, silent)
    moved = target.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    complete(moved, questions(1), BatchOptions(), kept, silent)
    assert len(fake.requests) == 1
    complete(target, questions(1), BatchOptions(max_tokens=7), kept, silent)
    complete(target, questions(1), BatchOptions(temperature=0.5), kept, silent)
    complete(target.model_copy(update={"model": "other"}), questions(1), BatchOptions(), kept, silent)
    assert len(fake.requests) == 4


def test_a_batch_killed_in_the_middle_goes_on_and_asks_nothing_twice(fake, target, tmp_path):
    """The client is a process of its own, killed with -9; what is under way then is the only thing asked once more."""
    kept = tmp_path / "kept.jsonl"
    fake.delay_s = 0.02
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tests.endpoint_client.test_batch import BatchOptions, Target, complete, questions, silent
        target = Target(base_url={fake.url!r}, model="fake", api_key_env="FAKE_KEY")
        complete(target, questions(300), BatchOptions(concurrency=4), Path({str(kept)!r}), silent)
        """)
    child = subprocess.Popen([sys.executable, "-c", script], cwd=CHECKOUT)
    try:
        deadline = time.monotonic() + 60
        while not kept.exists() or kept.read_bytes().count(b"\n") < 20:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.01)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    before = kept.read_bytes()
    assert 20 <= before.count(b"\n") < 300
    with kept.open("ab") as stream:
        stream.write(b'{"key": "torn", "te')
    fake.delay_s, already = 0, len(fake.requests)
    found = complete(target, questions(300), BatchOptions(concurrency=4), kept, silent)
    assert [one.text for one in found] == [f"You asked: question {n}" for n in range(300)]
    assert len(fake.requests) - already == 300 - before.count(b"\n")
    assert max(asked_words(fake).values()) <= 2
    assert sum(count == 2 for count in asked_words(fake).values()) <= 4, "only what was under way"
    assert kept.read_bytes().startswith(before)
    assert kept.read_bytes().count(b"\n") == 300


def test_who_is_told_to_end_does_not_wait_for_slow_answers_and_keeps_those_that_come(
    fake, target, tmp_path, monkeypatch
):
    monkeypatch.setattr(batch, "LAST_ANSWERS_S", 0.5)
    kept = tmp_path / "kept.jsonl"
    slow = threading.Event()
    waited = []

    def reply(asked):
        if "question 3" in asked:
            waited.append(slow.wait(30))
        return "yes"

    fake.reply = reply

    def told(done):
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            complete(target, questions(20), BatchOptions(concurrency=4), kept, told)
        assert not waited
        assert len(fake.requests) <= 9, "nothing more is asked"
        assert 1 <= kept.read_bytes().count(b"\n") < 20
    finally:
        slow.set()
