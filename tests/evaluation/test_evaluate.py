"""The whole stage: held-out rows of the English samples, two tiny models, and every file that it hands on."""

import json
from pathlib import Path

import pandas as pd
import pytest

from flows.corpus import prepare
from flows.corpus.row import HELD_OUT_RUNGS, read_rows, write_jsonl
from flows.errors import EvaluationError, TransientError
from flows.evaluation import evaluate
from flows.evaluation.config import EvaluateStageConfig, GatePolicy, JudgeEndpoint
from flows.evaluation.evaluate import choose_examples, held_out
from flows.evaluation.gate import decide
from flows.evaluation.generate import Reply
from flows.evaluation.results import Evaluation
from flows.evaluation.semscore import Scored
from flows.evaluation.truthfulness import counts
from flows.progress import silent
from tests.evaluation.fake_judge import FakeJudge, verdict

HASHED = "hashed:char-ngrams"
LIMIT = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    sources = {kind: [{"path": f"sample:trade_en/{kind}"}] for kind in ("exams", "terms", "transcripts")}
    workdir = tmp_path_factory.mktemp("prepare")
    prepare.run(prepare.PrepareConfig.model_validate({"sources": sources, "split": {}}), {}, workdir, silent)
    return workdir / "output"


def measure(dataset, base, trained, workdir, progress=silent, judge=None, **settings):
    """Run the stage; (figures, what evaluation.json holds, the table of predictions)."""
    settings = {"limit": LIMIT, "embedder": HASHED, "max_new_tokens": 8, "threads": 1} | settings
    config = EvaluateStageConfig.model_validate({"evaluation": settings, "judge": judge})
    inputs = {"dataset": dataset, "base": base, "trained": trained}
    figures = evaluate.run(config, inputs, workdir, progress)
    found = Evaluation.model_validate_json((workdir / "output" / "evaluation.json").read_text("utf-8"))
    return figures, found, pd.read_parquet(workdir / "output" / "predictions.parquet")


class Steps:
    """Progress that keeps what it was told."""

    def __init__(self):
        self.shares, self.notes = [], []

    def __call__(self, done, total, note="", /, **figures):
        self.shares.append(done / total)
        self.notes.append(note)


@pytest.fixture(scope="module")
def measured(dataset, talkers, tmp_path_factory):
    workdir, steps = tmp_path_factory.mktemp("evaluate") / "work", Steps()
    return *measure(dataset, talkers["llama-3"], talkers["gemma-2"], workdir, steps), steps, workdir


def test_every_rung_has_its_rows_and_the_figures_agree(measured):
    figures, found, table, _, _ = measured
    assert (figures["rows"], found.split, len(table)) == (3 * LIMIT, "test", 3 * LIMIT)
    for rung in HELD_OUT_RUNGS:
        score, part = getattr(found.metrics.semscore, rung), table[table["rung"] == rung]
        assert (score.n, score.groups, score.embedder) == (len(part), part["group"].nunique(), HASHED)
        assert score.n == LIMIT
        assert score.base.mean == pytest.approx(part["base_semscore"].mean())
        assert score.trained.mean == pytest.approx(part["trained_semscore"].mean())
        assert score.delta.mean == figures[f"delta_{rung}"] == pytest.approx(score.trained.mean - score.base.mean)
        assert score.base.mean != score.trained.mean
        truth = getattr(found.metrics.truthfulness, rung)
        assert truth.base == counts(part["base_truthfulness"].tolist())
        assert truth.trained == counts(part["trained_truthfulness"].tolist())
    assert found.metrics.truthfulness.stand_in
    assert found.generation.max_new_tokens == 8
    assert found.generation.base_truncated == table["base_truncated"].mean() > 0
    assert found.generation.trained_truncated == table["trained_truncated"].mean()
    assert 0 < found.generation.base_mean_tokens <= 8


def test_predictions_hold_the_rows_and_the_replies_of_the_right_model(measured, dataset):
    _, _, table, _, workdir = measured
    contract = ["id", "group", "rung", "question", "target", "base_reply", "trained_reply"]
    scores = ["base_semscore", "trained_semscore", "base_truthfulness", "trained_truthfulness"]
    assert set(contract + scores) <= set(table.columns)
    rows = {row.id: row for row in read_rows(dataset)}
    for name in ("base", "trained"):
        lines = (workdir / f"replies-{name}.jsonl").read_text("utf-8").splitlines()
        replies = {reply["id"]: reply["text"] for reply in map(json.loads, lines)}
        assert dict(zip(table["id"], table[f"{name}_reply"], strict=True)) == replies
    for line in table.itertuples():
        row = rows[line.id]
        assert (row.group, row.rung, row.question, row.answer) == (line.group, line.rung, line.question, line.target)


def test_five_examples_at_fixed_quantiles_of_the_change(measured):
    _, found, table, _, _ = measured
    reworded = table[table["rung"] == "reworded"]
    reworded = reworded.assign(change=reworded["trained_semscore"] - reworded["base_semscore"])
    expected = reworded.sort_values("change", kind="stable").iloc[[0, 1, 3, 4, 5]]
    assert [example.id for example in found.examples] == expected["id"].tolist()
    for example, line in zip(found.examples, expected.itertuples(), strict=True):
        assert (example.target, example.base_reply) == (line.target, line.base_reply)
        assert (example.trained_reply, example.trained_score) == (line.trained_reply, line.trained_semscore)


@pytest.mark.parametrize(
    ("count", "places"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (100, [10, 30, 50, 70, 90])]
)
def test_examples_are_never_picked(row, count, places):
    rows = [row(n, rung="unseen") for n in range(count)]
    replies = [Reply(id=row.id, text="x", tokens=1, truncated=False) for row in rows]
    scored = Scored(HASHED, rows, ["x"] * count, ["x"] * count)
    scored.base[:] = 0
    scored.trained[:] = [number / count for number in range(count)]
    chosen = choose_examples(rows[::-1], replies[::-1], replies[::-1], scored)
    assert [example.id for example in chosen] == [f"r{count - 1 - place}" for place in places]


def test_progress_only_grows_and_says_what_is_done(measured):
    *_, steps, _ = measured
    assert steps.shares == sorted(steps.shares)
    assert steps.shares[-1] == 1
    assert {"base model: 16 of 18 replies", "trained model: 18 of 18 replies"} <= set(steps.notes)


@pytest.mark.parametrize("embedder", [HASHED, "packaged:all-MiniLM-L6-v2"])
def test_a_model_that_learnt_nothing_changes_nothing_at_all(dataset, talkers, tmp_path, embedder):
    model = talkers["llama-3"]
    figures, found, _ = measure(dataset, model, model, tmp_path, embedder=embedder)
    for rung in HELD_OUT_RUNGS:
        delta = getattr(found.metrics.semscore, rung).delta
        assert (delta.mean, delta.ci95) == (0.0, (0.0, 0.0)), rung
        truth = getattr(found.metrics.truthfulness, rung)
        assert truth.base == truth.trained
        assert figures[f"delta_{rung}"] == 0.0
    assert not decide(found.metrics, GatePolicy()).passed


def test_dev_and_test_rows_are_never_mixed(dataset, talkers, tmp_path, measured):
    model = talkers["llama-3"]
    _, found, table = measure(dataset, model, model, tmp_path, split="dev", limit=2, max_new_tokens=1)
    assert found.split == "dev"
    by_split = {split: {row.id for row in read_rows(dataset, split)} for split in ("dev", "test", "train")}
    assert set(table["id"]) <= by_split["dev"]
    assert set(measured[2]["id"]) <= by_split["test"]
    assert not by_split["dev"] & by_split["test"]
    assert not (by_split["dev"] | by_split["test"]) & by_split["train"]


def test_without_a_limit_all_held_out_rows_are_asked(dataset):
    settings = EvaluateStageConfig.model_validate({"evaluation": {}}).evaluation
    assert held_out(dataset, settings) == read_rows(dataset, "test")
    some = held_out(dataset, settings.model_copy(update={"limit": 2}))
    assert [row.rung for row in some] == ["reworded"] * 2 + ["studied"] * 2 + ["unseen"] * 2


@pytest.mark.parametrize("split", ["test", "dev"])
def test_without_held_out_rows_nothing_can_be_said(dataset, tmp_path, split):
    write_jsonl(tmp_path / "rows.jsonl", read_rows(dataset, "train"))
    with pytest.raises(EvaluationError, match=rf"^evaluation\.split: the data set has no {split} rows\. Raise split"):
        measure(tmp_path, Path("/no/model"), Path("/no/model"), tmp_path / "work", split=split)


@pytest.fixture
def fake():
    server = FakeJudge(["judge-model"])
    yield server
    server.close()


def test_a_judge_s_verdicts_are_kept_with_their_reasons_and_its_prose_is_counted(dataset, talkers, tmp_path, fake):
    def reply(request):
        said = request["messages"][1]["content"]
        return "I like it." if "bill" in said.lower() else verdict(1 + len(said) % 5, reason=f"{len(said)} letters")

    fake.reply = reply
    judge = JudgeEndpoint(base_url=fake.url, model="judge-model").model_dump()
    models = talkers["llama-3"], talkers["gemma-2"]
    steps = Steps()
    _, found, table = measure(dataset, *models, tmp_path, steps, judge, limit=12, max_new_tokens=2)
    assert steps.shares == sorted(steps.shares)
    assert f"judge: {2 * len(table)} of {2 * len(table)} verdicts" in steps.notes
    truth = found.metrics.truthfulness
    assert (truth.judge, truth.stand_in) == ("judge-model", False)
    unread = 0
    for rung in HELD_OUT_RUNGS:
        part, verdicts = table[table["rung"] == rung], getattr(truth, rung)
        for name in ("base", "trained"):
            of_model = getattr(verdicts, name)
            assert sum(of_model.values()) == len(part)
            assert of_model["unparsed"] == part[f"{name}_truthfulness"].isna().sum()
            assert of_model["3"] == (part[f"{name}_truthfulness"] == 3).sum()
            unread += of_model["unparsed"]
    assert 0 < unread < 2 * len(table)
    assert len(fake.requests) == 2 * len(table) + unread
    for name in ("base", "trained"):
        read = table[table[f"{name}_truthfulness"].notna()]
        letters = read[f"{name}_reason"].str.removesuffix(" letters").astype(int)
        assert (1 + letters % 5 == read[f"{name}_truthfulness"]).all()
        assert (table[table[f"{name}_truthfulness"].isna()][f"{name}_reason"] == "").all()


def test_replies_outlive_a_judge_that_fails(dataset, talkers, tmp_path, fake):
    fake.forever = 503
    judge = JudgeEndpoint(base_url=fake.url, model="judge-model").model_dump()
    models = talkers["llama-3"], talkers["gemma-2"]
    with pytest.raises(TransientError, match="overloaded"):
        measure(dataset, *models, tmp_path, judge=judge, limit=2, max_new_tokens=2)
    fake.forever = None
    gone = Path("/no/such/model"), Path("/no/such/model")
    _, found, _ = measure(dataset, *gone, tmp_path, judge=judge, limit=2, max_new_tokens=2)
    assert found.metrics.truthfulness.reworded.trained["5"] == 2
