"""The evaluate stage: base and trained model on the same held-out rows, scored and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flows.corpus.row import HELD_OUT_RUNGS, Row, read_rows
from flows.errors import EvaluationError
from flows.evaluation.config import EvaluateStageConfig, EvaluationConfig
from flows.evaluation.generate import Reply, generate
from flows.evaluation.judge import judge
from flows.evaluation.results import Evaluation, Example, Generation, Metrics
from flows.evaluation.semscore import Scored, semscore
from flows.evaluation.truthfulness import Score, stand_in_scores, truthfulness
from flows.progress import Progress
from flows.store.digest import value_digest

EXAMPLE_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)


def run(config: EvaluateStageConfig, inputs: Mapping[str, Path], workdir: Path, progress: Progress) -> dict[str, Any]:
    """Compare `inputs["base"]` with `inputs["trained"]` on the held-out rows of `inputs["dataset"]`.

    Writes `evaluation.json` and `predictions.parquet` to `workdir/output`; replies made so far stay in `workdir`.

    Returns:
        Headline figures: rows, and SemScore delta per rung.

    Raises:
        EvaluationError: no held-out rows, no such embedder, a judge that refuses.
        TransientError: the judge does not answer.
    """
    settings = config.evaluation
    rows = held_out(inputs["dataset"], settings)
    output = workdir / "output"
    output.mkdir(parents=True, exist_ok=True)
    replies = {
        name: generate(
            settings,
            inputs[name],
            rows,
            workdir / f"replies-{name}.jsonl",
            lambda count, name=name, start=start: progress(  # type: ignore[misc]
                start + count, 3 * len(rows), f"{name} model: {count} of {len(rows)} replies"
            ),
        )
        for name, start in (("base", 0), ("trained", len(rows)))
    }
    base, trained = replies["base"], replies["trained"]
    progress(2 * len(rows), 3 * len(rows), "scoring")
    scored = Scored(settings.embedder, rows, [reply.text for reply in base], [reply.text for reply in trained])
    score = semscore(rows, scored, settings.embedder)
    if config.judge is None:
        base_truth, trained_truth = stand_in_scores(rows, scored, score)
        reasons: list[str] = [""] * (2 * len(rows))
    else:
        base_truth, trained_truth, reasons = _judged(config, rows, base, trained, workdir, progress)
    evaluation = Evaluation(
        split=settings.split,
        metrics=Metrics(
            semscore=score,
            truthfulness=truthfulness(rows, base_truth, trained_truth, config.judge.model if config.judge else ""),
        ),
        generation=_generation(settings, base, trained),
        examples=choose_examples(rows, base, trained, scored),
    )
    (output / "evaluation.json").write_text(evaluation.model_dump_json(indent=1), encoding="utf-8")
    _write_predictions(output / "predictions.parquet", rows, base, trained, scored, base_truth, trained_truth, reasons)
    progress(1, 1, "scored")
    deltas = {rung: getattr(score, rung) for rung in HELD_OUT_RUNGS}
    return {"rows": len(rows)} | {f"delta_{rung}": found.delta.mean for rung, found in deltas.items() if found}


def held_out(dataset: Path, settings: EvaluationConfig) -> list[Row]:
    """The rows to ask, at most `limit` of each rung.

    Raises:
        EvaluationError: there are none.
    """
    rows = read_rows(dataset, settings.split)
    if settings.limit:
        rows = [row for rung in HELD_OUT_RUNGS for row in [r for r in rows if r.rung == rung][: settings.limit]]
    if not rows:
        raise EvaluationError(
            f"evaluation.split: the data set has no {settings.split} rows. Raise split.reworded or "
            f"split.dev, or add sources."
        )
    return rows


def _judged(
    config: EvaluateStageConfig,
    rows: list[Row],
    base: list[Reply],
    trained: list[Reply],
    workdir: Path,
    progress: Progress,
) -> tuple[list[Score], list[Score], list[str]]:
    assert config.judge is not None
    count = len(rows)
    replies = [reply.text for reply in [*base, *trained]]

    def done(number: int) -> None:
        progress(2 * count + number / 2, 3 * count, f"judge: {number} of {2 * count} verdicts")

    # By judge and language: with another one the verdicts start afresh.
    asked = value_digest([config.judge.base_url, config.judge.model, config.evaluation.judge_language])
    kept = workdir / f"verdicts-{asked[:12]}.jsonl"
    verdicts = judge(config.judge, config.evaluation.judge_language, [*rows, *rows], replies, done, kept)
    scores: list[Score] = [verdict.score if verdict else None for verdict in verdicts]
    return scores[:count], scores[count:], [verdict.reason if verdict else "" for verdict in verdicts]


def _generation(settings: EvaluationConfig, base: list[Reply], trained: list[Reply]) -> Generation:
    def share(replies: list[Reply]) -> float:
        return float(np.mean([reply.truncated for reply in replies]))

    def tokens(replies: list[Reply]) -> float:
        return float(np.mean([reply.tokens for reply in replies]))

    return Generation(
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        base_truncated=share(base),
        trained_truncated=share(trained),
        base_mean_tokens=tokens(base),
        trained_mean_tokens=tokens(trained),
    )


def choose_examples(rows: list[Row], base: list[Reply], trained: list[Reply], scored: Scored) -> list[Example]:
    """Five rows from the most worsened to the most improved: at fixed quantiles of the change, so none is picked."""
    at = [number for number, row in enumerate(rows) if row.rung == "reworded"] or list(range(len(rows)))
    at.sort(key=lambda number: float(scored.trained[number] - scored.base[number]))
    chosen = dict.fromkeys(at[int(quantile * len(at))] for quantile in EXAMPLE_QUANTILES)  # five from five rows on
    return [
        Example(
            id=rows[number].id,
            rung=rows[number].rung,
            question=rows[number].question,
            target=rows[number].answer,
            base_reply=base[number].text,
            trained_reply=trained[number].text,
            base_score=float(scored.base[number]),
            trained_score=float(scored.trained[number]),
        )
        for number in chosen
    ]


def _write_predictions(
    path: Path,
    rows: list[Row],
    base: list[Reply],
    trained: list[Reply],
    scored: Scored,
    base_truth: list[Score],
    trained_truth: list[Score],
    reasons: list[str],
) -> None:
    import pandas as pd

    table = pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "group": [row.group for row in rows],
            "rung": [row.rung for row in rows],
            "question": [row.question for row in rows],
            "instruction": [row.instruction for row in rows],
            "target": [row.answer for row in rows],
            "base_reply": [reply.text for reply in base],
            "trained_reply": [reply.text for reply in trained],
            "base_semscore": scored.base,
            "trained_semscore": scored.trained,
            "base_truthfulness": pd.array(base_truth, dtype="Int8"),
            "trained_truthfulness": pd.array(trained_truth, dtype="Int8"),
            "base_reason": reasons[: len(rows)],
            "trained_reason": reasons[len(rows) :],
            "base_truncated": [reply.truncated for reply in base],
            "trained_truncated": [reply.truncated for reply in trained],
        }
    )
    table.to_parquet(path, index=False)
