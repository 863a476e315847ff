"""What an evaluation finds, in the shape in which `report.json` holds it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of result models: read back strictly, so that a changed contract is noticed."""

    model_config = ConfigDict(extra="forbid")


class Estimate(Result):
    """A mean with its 95 % interval (paired cluster bootstrap over groups)."""

    mean: float
    ci95: tuple[float, float]


class RungSemScore(Result):
    """SemScore of one rung: mean cosine of reply and target, -1..1, 1 best."""

    n: int
    groups: int
    base: Estimate
    trained: Estimate
    delta: Estimate
    floor: float
    ceiling: float
    embedder: str


class SemScore(Result):
    """SemScore per rung; a rung without rows is None, never zero."""

    reworded: RungSemScore | None = None
    studied: RungSemScore | None = None
    unseen: RungSemScore | None = None


class RungTruthfulness(Result):
    """Counts of verdicts, keys "1".."5" and "unparsed", of the base and of the trained model."""

    base: dict[str, int]
    trained: dict[str, int]


class Truthfulness(Result):
    """Verdicts per rung. `stand_in` is True where no LLM judged and the scores are made from similarity."""

    judge: str
    stand_in: bool
    reworded: RungTruthfulness | None = None
    studied: RungTruthfulness | None = None
    unseen: RungTruthfulness | None = None


class Metrics(Result):
    """All metrics of a run."""

    semscore: SemScore
    truthfulness: Truthfulness


class Generation(Result):
    """How replies were made; the same for both models. `*_truncated` is the share that hit max_new_tokens, 0..1."""

    max_new_tokens: int
    batch_size: int
    base_truncated: float
    trained_truncated: float
    base_mean_tokens: float
    trained_mean_tokens: float


class Example(Result):
    """One question before and after training, with the cosine of each reply to the target."""

    id: str
    rung: str
    question: str
    target: str
    base_reply: str
    trained_reply: str
    base_score: float
    trained_score: float


class Evaluation(Result):
    """Everything evaluation hands on (`evaluation.json` of its artifact, beside `predictions.parquet`)."""

    split: str
    metrics: Metrics
    generation: Generation
    examples: list[Example]
