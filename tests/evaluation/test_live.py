"""Replies of a real HTTP endpoint to held-out rows, and the two comparisons that a promotion rests on."""

import pytest

from flows.endpoint_client.errors import RefusedError
from flows.endpoint_client.target import Target
from flows.errors import EvaluationError
from flows.evaluation.live import check_against_offline, compare, live_replies
from tests.endpoint_client.fake_endpoint import FakeEndpoint

HASHED = "hashed:char-ngrams"
GOOD = [f"Part number {n} of the whole machine." for n in range(12)]


@pytest.fixture
def fake():
    server = FakeEndpoint()
    yield server
    server.close()


@pytest.fixture
def asked(row):
    return [row(n, question=f"What is part {n}?", answer=GOOD[n]) for n in range(12)]


def test_the_endpoint_is_asked_what_the_model_was_trained_on(fake, row, tmp_path):
    rows = [row(1, instruction="Answer."), row(2)]
    target, counts = Target(base_url=fake.url, model="fake"), []
    fake.reply = lambda words: f" {words!r} "
    for _ in range(2):
        found = live_replies(target, rows, 9, 2, tmp_path / "kept.jsonl", counts.append)
        assert found == ["'Answer.\\nWhat is it?'", "'What is it?'"]
    assert len(fake.requests) == 2
    assert {(body["max_tokens"], body["temperature"]) for body in fake.requests} == {(9, 0)}
    assert sorted(len(body["messages"]) for body in fake.requests) == [1, 1]
    assert {body["messages"][0]["role"] for body in fake.requests} == {"user"}
    assert counts == [1, 2, 2]


def test_a_row_that_stays_without_a_reply_ends_it(fake, asked):
    fake.fault = lambda number, body: 400
    with pytest.raises(RefusedError, match="Error code: 400"):
        live_replies(Target(base_url=fake.url, model="fake"), asked, 9, 2, None, lambda count: None)


def test_equal_replies_are_no_worse(asked):
    found = compare(asked, GOOD, GOOD, HASHED, margin=0.0)
    assert (found.passed, found.rows, found.delta.mean, found.delta.ci95) == (True, 12, 0, (0, 0))
    assert found.candidate == found.reference
    assert found.candidate.mean == pytest.approx(1)
    assert found.reason == (
        "SemScore 1.000 against 1.000 of the model that serves now; it is not proven to lose more than 0.000 "
        "(difference +0.000, 95 % interval +0.000 to +0.000, 12 rows)"
    )


def test_noise_is_proven_worse_and_said_with_figures(asked):
    found = compare(asked, ["qqq zzz"] * 12, GOOD, HASHED, margin=0.05)
    assert not found.passed
    assert found.delta.mean == pytest.approx(found.candidate.mean - found.reference.mean)
    assert found.delta.ci95[1] < -0.05
    low, high = found.delta.ci95
    assert found.reason == (
        f"SemScore {found.candidate.mean:.3f} against 1.000 of the model that serves now; it is proven to lose more "
        f"than 0.050 (difference {found.delta.mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, 12 rows)"
    )
    assert compare(asked, GOOD, ["qqq zzz"] * 12, HASHED, margin=0.05).passed


def test_a_loss_that_is_proven_but_within_the_margin_passes_and_is_called_a_loss(asked):
    found = compare(asked, ["qqq zzz"] * 12, GOOD, HASHED, margin=2.0)
    assert found.passed
    assert found.delta.ci95[1] < 0
    assert "; it loses, but is not proven to lose more than 2.000 (difference -" in found.reason
    assert "; it is not proven" in compare(asked, GOOD, ["qqq zzz"] * 12, HASHED, margin=2.0).reason


def test_a_loss_beyond_the_margin_counts_against_the_same_model_only_though_the_interval_is_wide(asked):
    """Two of twelve replies are lost: not proven worse than the margin, but worse in the mean."""
    some = ["qqq zzz"] * 2 + GOOD[2:]
    found = compare(asked, some, GOOD, HASHED, margin=0.05)
    assert found.delta.ci95[1] >= -0.05 > found.delta.mean
    assert found.passed
    scores = {row.id: 1.0 for row in asked}
    offline = check_against_offline(asked, some, scores, HASHED, margin=0.05)
    assert offline.delta.mean == pytest.approx(found.delta.mean)
    assert not offline.passed
    assert "of its own offline evaluation; it loses more than 0.050 (" in offline.reason


def test_rows_of_one_fact_rise_and_fall_together(row):
    rows = [row(n, question=f"What is part {n}?", answer=GOOD[n], group=f"g{n // 6}") for n in range(12)]
    found = compare(rows, GOOD[:6] + ["qqq"] * 6, GOOD, HASHED, margin=0.05)
    alone = [row(n, question=f"What is part {n}?", answer=GOOD[n]) for n in range(12)]
    narrow = compare(alone, GOOD[:6] + ["qqq"] * 6, GOOD, HASHED, margin=0.05)
    assert found.delta.ci95[0] < narrow.delta.ci95[0]


def test_the_served_model_is_checked_against_its_own_offline_scores(asked):
    scores = {row.id: 1.0 for row in asked}
    assert check_against_offline(asked, GOOD, scores, HASHED, margin=0.01).passed
    found = check_against_offline(asked, ["<|im_start|> system"] * 12, scores, HASHED, margin=0.05)
    assert not found.passed
    assert found.reference.mean == pytest.approx(1)
    assert "of its own offline evaluation; it is proven to lose more than" in found.reason


def test_what_cannot_be_compared_is_said(asked):
    with pytest.raises(EvaluationError, match="11 of 12 rows have no score in the offline evaluation, the first: r1"):
        check_against_offline(asked, GOOD, {"r0": 1.0}, HASHED, 0.05)
    with pytest.raises(EvaluationError, match="no held-out rows"):
        compare([], [], [], HASHED, 0.05)
