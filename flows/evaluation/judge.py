"""Truthfulness by an LLM judge: reply and target in, a score from 1 to 5 out, in a fixed JSON shape.

Source: reference-based grading with a rubric as in Kim et al. 2023, Prometheus, arXiv 2310.08491. A verdict that cannot
be read is counted as unparsed, never as a bad mark.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import yaml
from openai import APIConnectionError, APIError, APIStatusError, AuthenticationError, OpenAI
from pydantic import BaseModel, Field, ValidationError, field_validator

from flows.corpus.row import Row
from flows.errors import EvaluationError, TransientError
from flows.evaluation.config import JudgeEndpoint
from flows.placeholders import fill
from flows.store.digest import value_digest

PARALLEL = 8
ATTEMPTS = 2  # asked again once when the verdict cannot be read
TIMEOUT_S = 120.0
NO_KEY = "none"  # for servers that ask for none; the client insists on one
PASSING = (408, 409, 429)  # refusals that time mends, besides 5xx


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

    Verdicts are appended to the file `kept` as they come; after a failure only the missing ones are asked for.

    Raises:
        TransientError: the endpoint does not answer (the client has retried with growing pauses).
        EvaluationError: it refuses our requests: wrong key, model or request.
    """
    client = make_client(endpoint)
    prompts = importlib.resources.files("flows.evaluation") / "judge_prompts" / f"{language}.yaml"
    prompt = yaml.safe_load(prompts.read_text("utf-8"))
    memory = _Memory(kept)

    def verdict_of(pair: tuple[Row, str]) -> Verdict | None:
        row, reply = pair
        key = value_digest([row.question, row.answer, reply])
        if key not in memory.verdicts:
            memory.keep(key, _verdict(client, endpoint, prompt, row, reply))
        return memory.verdicts[key]

    verdicts: list[Verdict | None] = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for verdict in pool.map(verdict_of, zip(rows, replies, strict=True)):
            verdicts.append(verdict)
            done(len(verdicts))
    return verdicts


class _Memory:
    """Verdicts by question, target and reply, in a file of JSON lines; a torn last line is forgotten."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.verdicts: dict[str, Verdict | None] = {}
        kept = path.read_text("utf-8", "replace") if path and path.exists() else ""
        if path and kept and not kept.endswith("\n"):
            path.write_bytes(path.read_bytes() + b"\n")  # ends a torn line, so that the next is whole
        for line in kept.splitlines():
            try:
                key, verdict = json.loads(line)
                self.verdicts[key] = Verdict.model_validate(verdict) if verdict else None
            except ValueError:
                continue

    def keep(self, key: str, verdict: Verdict | None) -> None:
        with self.lock:
            self.verdicts[key] = verdict
            if self.path:
                with self.path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps([key, verdict.model_dump() if verdict else None]) + "\n")


def make_client(endpoint: JudgeEndpoint, key: str = "") -> OpenAI:
    """A client that retries what may pass by itself: lost connections, 408, 409, 429, 5xx."""
    key = key or (os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else "")
    return OpenAI(base_url=endpoint.base_url, api_key=key or NO_KEY, max_retries=4, timeout=TIMEOUT_S)


def check(endpoint: JudgeEndpoint, key: str = "") -> None:
    """Ask for the judge's models, before anything is trained.

    Raises:
        EvaluationError: no answer, or no such model; names the URL.
    """
    client = make_client(endpoint, key).with_options(max_retries=1, timeout=10.0)
    try:
        models = [model.id for model in client.models.list()]
    except APIError as error:
        fails = "refuses us" if isinstance(error, APIStatusError) else "does not answer"
        raise EvaluationError(
            f"evaluation.judge: the judge at {endpoint.base_url} {fails} ({_why(error, client)}). Start it, "
            f"correct the OpenAI Endpoint block, or leave evaluation.judge empty for the stand-in."
        ) from error
    except (AttributeError, ValueError) as error:
        raise _other_protocol(endpoint) from error
    if models and endpoint.model not in models:
        raise EvaluationError(
            f"evaluation.judge: {endpoint.base_url} has no model '{endpoint.model}'. It has: {', '.join(models[:10])}."
        )


def read_verdict(text: str | None) -> Verdict | None:
    """The verdict in a judge's reply, or None. Only the whole agreed JSON counts; no digit is fished out of prose."""
    try:
        return Verdict.model_validate(json.loads(text or ""))
    except (json.JSONDecodeError, ValidationError, RecursionError):
        return None


def _verdict(client: OpenAI, endpoint: JudgeEndpoint, prompt: dict[str, str], row: Row, reply: str) -> Verdict | None:
    user = fill(prompt["user"], rubric=prompt["rubric"], question=row.question, target=row.answer, reply=reply)
    messages: Any = [{"role": "system", "content": prompt["system"]}, {"role": "user", "content": user}]
    for _ in range(ATTEMPTS):
        verdict = read_verdict(_ask(client, endpoint, messages))
        if verdict is not None:
            return verdict
    return None


def _ask(client: OpenAI, endpoint: JudgeEndpoint, messages: Any) -> str | None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
    try:
        made = client.chat.completions.create(
            model=endpoint.model, messages=messages, temperature=0, max_tokens=400, response_format=form
        )
        return made.choices[0].message.content if made.choices else None
    except APIConnectionError as error:
        raise TransientError(f"The judge at {endpoint.base_url} stopped answering: {_why(error, client)}") from error
    except APIStatusError as error:
        if error.status_code >= 500 or error.status_code in PASSING:
            raise TransientError(f"The judge at {endpoint.base_url} is overloaded: {_why(error, client)}") from error
        raise EvaluationError(
            f"evaluation.judge: {endpoint.base_url} refuses to judge with the model '{endpoint.model}': "
            f"{_why(error, client)}. Correct the OpenAI Endpoint block."
        ) from error
    except (AttributeError, ValueError) as error:
        raise _other_protocol(endpoint) from error


def _other_protocol(endpoint: JudgeEndpoint) -> EvaluationError:
    """For an answer that is no JSON object, such as a web page: the client itself stumbles over it."""
    return EvaluationError(
        f"evaluation.judge: {endpoint.base_url} answers, but not as an OpenAI-compatible API. Correct the URL of the "
        f"OpenAI Endpoint block; most end in /v1."
    )


def _why(error: Exception, client: OpenAI) -> str:
    """The error in one line, without the API key, which some servers repeat."""
    if isinstance(error, AuthenticationError):
        return "the API key is refused"
    text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return text.replace(client.api_key, "(key)")[:200] if client.api_key != NO_KEY else text[:200]
