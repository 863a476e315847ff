"""Parameters of the evaluation and of the gate behind it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.config import Config
from flows.endpoint_client.target import Target


class EvaluationConfig(Config):
    """How base and trained model are compared; both get the same questions and the same settings."""

    split: Literal["test", "dev"] = Field(
        default="test", title="Held-out share", description="test for the report; dev while a recipe is being tuned."
    )
    embedder: str = Field(
        default="packaged:all-MiniLM-L6-v2",
        min_length=1,
        title="Embedder",
        description="For SemScore. packaged:all-MiniLM-L6-v2 (English, no network), hashed:char-ngrams (any language, "
        "spelling only), or a sentence-transformers model: sentence-transformers/all-mpnet-base-v2, BAAI/bge-m3 for "
        "Korean, a folder.",
    )
    max_new_tokens: int = Field(
        default=128, ge=1, le=8192, title="Longest reply (tokens)", description="The report says how many were cut off."
    )
    batch_size: int = Field(default=16, ge=1, le=1024, title="Batch (questions)", description="Answered at a time.")
    limit: int = Field(
        default=0,
        ge=0,
        title="Limit (rows a rung)",
        description="Use only so many held-out rows of each rung; 0 is all.",
    )
    threads: int = Field(default=0, ge=0, le=1024, title="CPU threads", description="On a CPU; 0: what torch chooses.")
    judge: str = Field(
        default="",
        title="Judge",
        description="Name of an OpenAI Endpoint block with the LLM that scores truthfulness from 1 to 5. Empty: a "
        "stand-in made from similarity, named so in the report.",
    )
    judge_language: Literal["en", "ko"] = Field(
        default="en", title="Judge's language", description="Of the instructions and the rubric that the judge reads."
    )


class JudgeEndpoint(Target):
    """The endpoint of the LLM that judges."""


class EvaluateStageConfig(Config):
    """What the evaluate stage depends on, besides models and data set."""

    evaluation: EvaluationConfig
    judge: JudgeEndpoint | None = None


class GatePolicy(Config):
    """What the evaluation must show before a model is served."""

    min_delta: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        title="Least gain",
        description="The lower end of the interval of the reworded SemScore gain must lie above this (-1 to 1).",
    )
    margin: float = Field(
        default=0.05,
        ge=0,
        le=1,
        title="Tolerated loss",
        description="No other rung may be proven worse: the upper end of its interval below minus this margin.",
    )
    require_truthfulness: bool = Field(
        default=False,
        title="Require truthfulness",
        description="An LLM judge's mean score of the reworded rung must rise too; the stand-in never counts.",
    )
