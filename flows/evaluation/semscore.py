"""SemScore: cosine of the sentence embeddings of reply and target, with controls beside it.

Source: Aynetdinov and Akbik 2024, SemScore, arXiv 2401.17072. The number rises from a better format alone, so it stands
between a floor (the reply to another question's target: what the field's language gives by itself) and a ceiling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flows.corpus.row import HELD_OUT_RUNGS, Row
from flows.evaluation import embedders
from flows.evaluation.bootstrap import estimate
from flows.evaluation.results import RungSemScore, SemScore

Scores = NDArray[np.float64]
SHUFFLES = 20


class Scored:
    """Cosines `(rows,)` of each model's replies with the targets, and of other questions' targets with them."""

    def __init__(self, embedder: str, rows: list[Row], base: list[str], trained: list[str]) -> None:
        vectors = embedders.embed(embedder, [row.answer for row in rows] + base + trained)
        count = len(rows)
        self.target = vectors[:count]
        self.base = _cosine(vectors[count : 2 * count], self.target)
        self.trained = _cosine(vectors[2 * count :], self.target)
        self.ceiling = _cosine(self.target, self.target)


def _cosine(one: Scores, other: Scores) -> Scores:
    return np.asarray((one * other).sum(axis=1))


def floor(target: Scores, groups: list[str]) -> float:
    """Mean cosine of a target with the target of a row of another group; 0 when there is only one group."""
    rng = np.random.default_rng(20)
    names = np.asarray(groups)
    values: list[float] = []
    for _ in range(SHUFFLES):
        order = rng.permutation(len(groups))
        other = names[order] != names
        values += _cosine(target[order], target)[other].tolist()
    return float(np.mean(values)) if values else 0.0


def semscore(rows: list[Row], scored: Scored, embedder: str) -> SemScore:
    """SemScore of each rung that has rows."""
    by_rung: dict[str, RungSemScore] = {}
    for rung in HELD_OUT_RUNGS:
        at = [number for number, row in enumerate(rows) if row.rung == rung]
        if not at:
            continue
        groups = [rows[number].group for number in at]
        base, trained = scored.base[at], scored.trained[at]
        by_rung[rung] = RungSemScore(
            n=len(at),
            groups=len(set(groups)),
            base=estimate(base.tolist(), groups, (-1.0, 1.0)),
            trained=estimate(trained.tolist(), groups, (-1.0, 1.0)),
            delta=estimate((trained - base).tolist(), groups, (-2.0, 2.0)),
            floor=floor(scored.target[at], groups),
            ceiling=float(scored.ceiling[at].mean()),
            embedder=embedders.label(embedder),
        )
    return SemScore(**by_rung)
