"""Truthfulness per rung, from an LLM judge's verdicts or, without one, from the stand-in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flows.corpus.row import HELD_OUT_RUNGS, Row
from flows.evaluation.results import RungTruthfulness, SemScore, Truthfulness
from flows.evaluation.semscore import Scored

STAND_IN = "stand-in: similarity"
Score = int | None


def stand_in_scores(rows: list[Row], scored: Scored, semscore: SemScore) -> tuple[list[Score], list[Score]]:
    """Scores 1 to 5 of base and trained replies from their cosine, between the rung's floor (1) and ceiling (5)."""

    def scores(cosines: Sequence[float]) -> list[Score]:
        made: list[Score] = []
        for row, cosine in zip(rows, cosines, strict=True):
            rung = getattr(semscore, row.rung)
            place = (cosine - rung.floor) / max(rung.ceiling - rung.floor, 1e-9)
            made.append(int(np.clip(round(1 + 4 * place), 1, 5)))
        return made

    return scores(scored.base.tolist()), scores(scored.trained.tolist())


def counts(scores: Sequence[Score]) -> dict[str, int]:
    """How often each score stands there, and how many could not be read."""
    found = {str(value): sum(score == value for score in scores) for value in range(1, 6)}
    return {**found, "unparsed": sum(score is None for score in scores)}


def truthfulness(rows: list[Row], base: Sequence[Score], trained: Sequence[Score], judge: str) -> Truthfulness:
    """Counts per rung; an empty `judge` names the stand-in."""
    by_rung: dict[str, RungTruthfulness] = {}
    for rung in HELD_OUT_RUNGS:
        at = [number for number, row in enumerate(rows) if row.rung == rung]
        if at:
            by_rung[rung] = RungTruthfulness(
                base=counts([base[number] for number in at]), trained=counts([trained[number] for number in at])
            )
    return Truthfulness(judge=judge or STAND_IN, stand_in=not judge, **by_rung)


def mean_score(found: dict[str, int]) -> float | None:
    """The mean of the readable scores; None when there is none."""
    scores = {value: found.get(str(value), 0) for value in range(1, 6)}
    number = sum(scores.values())
    return sum(value * count for value, count in scores.items()) / number if number else None
