"""Truthfulness by an LLM judge: reply and target in, a score from 1 to 5 out, in a fixed JSON shape.

Source: reference-based grading with a rubric as in Kim et al. 2023, Prometheus, arXiv 2310.08491. A verdict that cannot
be read is counted as unparsed, never as a bad mark.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from flows.corpus.row import Row
from flows.endpoint_client import target as endpoints
from flows.endpoint_client.batch import complete
from flows.endpoint_client.errors import NoAnswerError, RefusedError
from flows.endpoint_client.request import BatchOptions, Request
from flows.errors import EvaluationError, TransientError
from flows.evaluation.config import JudgeEndpoint
from flows.placeholders import fill

ATTEMPTS = 2  # asked again once when the verdict cannot be read
ASKING = BatchOptions(concurrency=8, max_tokens=400, retries=4, timeout_s=120)


class Verdict(BaseModel):
    """What the judge must return; the reason comes first, so that the score follows from it."""

    reason: str
    score: Literal[1, 2, 3, 4, 5] = Field(description="1 to 5 by the rubric")

    @field_validator("score", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a score is a number")
        return value


SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}


def judge(
    endpoint: JudgeEndpoint,
    language: str,
    rows: list[Row],
    replies: list[str],
    done: Callable[[int], None],
    kept: Path | None = None,
) -> list[Verdict | None]:
    """A verdict for each reply, in order; None where the judge's words could not be read.

    Its answers are appended to the file `kept` as they come; after a failure only the missing ones are asked for.

    Raises:
        TransientError: the endpoint does not answer (it was asked again, with growing pauses).
        EvaluationError: it refuses our requests: wrong key, model or request.
    """
    prompts = importlib.resources.files("flows.evaluation") / "judge_prompts" / f"{language}.yaml"
    prompt = yaml.safe_load(prompts.read_text("utf-8"))
    asked = [_request(prompt, row, reply) for row, reply in zip(rows, replies, strict=True)]
    verdicts: dict[int, Verdict | None] = dict.fromkeys(range(len(asked)))
    for attempt in range(ATTEMPTS):
        open_ones = [number for number, verdict in verdicts.items() if verdict is None]
        requests = [asked[number].model_copy(update={"again": attempt}) for number in open_ones]
        texts = _answers(endpoint, requests, kept, done if attempt == 0 else _unheard)
        verdicts |= {number: read_verdict(text) for number, text in zip(open_ones, texts, strict=True)}
    return list(verdicts.values())


def _answers(
    endpoint: JudgeEndpoint, requests: list[Request], kept: Path | None, done: Callable[[int], None]
) -> list[str]:
    try:
        # A content filter that lets the judge say nothing makes no verdict, and is no reason to stop.
        return [found.text for found in complete(endpoint, requests, ASKING, kept, done, accept_silence=True)]
    except NoAnswerError as error:
        raise TransientError(f"evaluation.judge: {error}") from error
    except RefusedError as error:
        raise EvaluationError(f"evaluation.judge: {error} Correct the OpenAI Endpoint block.") from error


def _unheard(count: int) -> None:
    """Second questions are not counted: all have been asked once."""


def _request(prompt: dict[str, str], row: Row, reply: str) -> Request:
    user = fill(prompt["user"], rubric=prompt["rubric"], question=row.question, target=row.answer, reply=reply)
    return Request(
        id=row.id,
        messages=[{"role": "system", "content": prompt["system"]}, {"role": "user", "content": user}],
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}},
    )


def check(endpoint: JudgeEndpoint, key: str = "") -> None:
    """Ask for the judge's models, before anything is trained.

    Raises:
        EvaluationError: no answer, or no such model; names the URL.
    """
    try:
        endpoints.check(endpoint, key)
    except (NoAnswerError, RefusedError) as error:
        raise EvaluationError(
            f"evaluation.judge: the judge at {endpoint.base_url} {error.what}. Start it, correct the OpenAI Endpoint "
            "block, or leave evaluation.judge empty for the stand-in."
        ) from error


def read_verdict(text: str) -> Verdict | None:
    """The verdict in a judge's reply, or None. Only the whole agreed JSON counts; no digit is fished out of prose."""
    try:
        return Verdict.model_validate(json.loads(text))
    except (json.JSONDecodeError, ValidationError, RecursionError):
        return None
