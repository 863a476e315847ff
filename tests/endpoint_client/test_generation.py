"""A file of questions through a real HTTP server: replies, figures, going on, and the page that shows them."""

import json

import pytest

from flows.endpoint_client.errors import NoAnswerError
from flows.endpoint_client.generation import generate
from flows.endpoint_client.request import BatchOptions, Request
from flows.reporting.generation import generation_line, generation_markdown
from tests.endpoint_client.fake_endpoint import asked


@pytest.fixture
def requests():
    return [Request(id=f"r{n}", messages=[{"role": "user", "content": f"question | {n}"}]) for n in range(30)]


def test_replies_are_written_once_all_are_there_and_what_was_answered_is_not_asked_again(
    fake, target, requests, tmp_path
):
    kept, output, steps = tmp_path / "kept.jsonl", tmp_path / "replies.jsonl", []

    def progress(done, total, note="", /, **figures):
        steps.append((done, total, note))

    fake.fault = lambda number, body: 503 if number >= 10 else None
    with pytest.raises(NoAnswerError):
        generate(target, requests, BatchOptions(concurrency=1, retries=0), kept, output, progress)
    assert not output.exists()
    before = len(fake.requests)
    fake.fault, fake.message = lambda number, body: 400 if asked(body)[-1] == "7" else None, "too long"
    options = BatchOptions(concurrency=2, failures_allowed=0.1)
    found, completions = generate(target, requests, options, kept, output, progress)
    assert (found.requests, found.asked, found.failed, found.truncated) == (30, 20, 2, 0)
    assert found.tokens_per_s * found.seconds == pytest.approx(18 * 5)
    assert [json.loads(line)["reply"] for line in output.read_text().splitlines()] == [one.text for one in completions]
    assert completions[0].text == "You asked: question | 0"
    assert steps[-1] == (30, 30, "30 of 30 requests")

    again, same = generate(target, requests, options, kept, output, progress)
    assert (again.asked, again.failed, again.tokens_per_s, same) == (0, 2, None, completions)
    assert len(fake.requests) == before + 20

    line, page = generation_line(found), generation_markdown(found, requests, completions)
    assert line.startswith("30 requests, 28 replies, 2 failed, ")
    assert line.endswith(f"tokens/s: {output}")
    assert generation_line(again) == f"30 requests, 28 replies, 2 failed: {output}"
    assert "## The first 10" in page
    assert r"| r9 | question \| 9 | You asked: question \| 9 | 5 |" in page
    assert "| r10 |" not in page
    assert "## Without a reply, the first 2" in page
    assert "| r17 | question" in page
    assert "too long" in page
