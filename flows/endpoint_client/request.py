"""One request and what comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.config import Config
from flows.endpoint_client.errors import NoAnswerError, RefusedError
from flows.endpoint_client.retry import passes, retried
from flows.endpoint_client.target import OTHER_PROTOCOL, Target, why

if TYPE_CHECKING:
    from openai import OpenAI

UNREADABLE_ATTEMPTS = 3  # of an answer that is none of the API's
FOR_ALL = (401, 403, 404)  # key, rights, model or path: what is refused once is refused to every request
SILENT = "answered without a choice"


class Request(BaseModel):
    """What is asked. `id` is the caller's; it is not sent and does not make two requests different.

    Either `messages` (chat), or `prompt`, for servers and models that know no chat. `response_format` is sent as it is.
    `again` tells apart requests that are the same and want another answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    messages: list[dict[str, Any]] = []
    prompt: str = ""
    response_format: dict[str, Any] = {}
    again: int = 0

    @model_validator(mode="after")
    def _one_of_two(self) -> Request:
        if bool(self.messages) == bool(self.prompt):
            raise ValueError("give either messages or a prompt")
        return self


class Completion(BaseModel):
    """The answer to a request, or why there is none (`error`; empty when there is one).

    `tokens` and `prompt_tokens` are the server's count, None where it gives none; `truncated` means that the reply
    reached max_tokens without ending by itself; `seconds` are from the first try to the end, pauses included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    text: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    truncated: bool = False
    seconds: float = 0.0
    error: str = ""


class BatchOptions(Config):
    """How many requests are asked and what becomes of those that fail."""

    concurrency: int = Field(
        default=8, ge=1, le=512, title="Concurrency", description="How many requests are under way at a time."
    )
    max_tokens: int = Field(
        default=256, ge=1, le=131072, title="Longest reply (tokens)", description="A reply is cut off there."
    )
    temperature: float = Field(
        default=0.0,
        ge=0,
        le=2,
        title="Temperature",
        description="0: always the most probable token. Above 0, equal questions still get one reply.",
    )
    retries: int = Field(
        default=8,
        ge=0,
        le=100,
        title="Retries",
        description="How often a request is asked again after a lost connection, a timeout, 408, 409, 429 or 5xx, with "
        "pauses of 0.5 s to 30 s or as the server asks; 8 bridge about a minute and a half.",
    )
    timeout_s: float = Field(
        default=300.0, gt=0, le=86400, title="Timeout (s)", description="Longest silence while an answer is awaited."
    )
    failures_allowed: float = Field(
        default=0.0,
        ge=0,
        le=1,
        title="Failures allowed (share)",
        description="Share of the requests (0 to 1) that may stay without a reply. More of them end the run.",
    )


@dataclass(frozen=True)
class Signals:
    """What the requests of a batch tell one another: that all is given up, and that the endpoint speaks the API."""

    given_up: Event = field(default_factory=Event)
    speaks: Event = field(default_factory=Event)


@dataclass(frozen=True)
class Outcome:
    """A completion. `lasting`: asking again changes nothing. `error` is what to raise if this is not to be borne."""

    completion: Completion
    lasting: bool = True
    error: RefusedError | NoAnswerError | None = None


class _Unreadable(Exception):  # noqa: N818 - never leaves this module
    """An answer with status 200 that is none of the API's."""


def ask(client: OpenAI, target: Target, request: Request, options: BatchOptions, signals: Signals) -> Outcome:
    """Ask, again and again where that helps.

    Raises:
        RefusedError: no request will be answered: wrong key, model or path.
        NoAnswerError: the endpoint does not take connections any more.
    """
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    started = time.monotonic()

    def failed(what: str, error: type[RefusedError] | type[NoAnswerError], lasting: bool = False) -> Outcome:
        completion = Completion(id=request.id, error=what, seconds=time.monotonic() - started)
        return Outcome(completion, lasting, error(target.base_url, what))

    try:
        made = retried(
            lambda: _ask_readable(client, target, request, options),
            options.retries,
            signals.given_up,
            # Nonsense from who was understood before is a proxy's or an overload's.
            also=lambda error: isinstance(error, _Unreadable) and signals.speaks.is_set(),
        )
        signals.speaks.set()
    except APIStatusError as error:
        reason = why(error, client)
        if passes(error) or error.status_code >= 500 or error.status_code == 429:
            return failed(f"is overloaded: {reason}", NoAnswerError)
        refused = f"refuses the request with the model '{target.model}': {reason}"
        if error.status_code in FOR_ALL:
            raise RefusedError(target.base_url, refused) from error
        return failed(refused, RefusedError, lasting=True)
    except APITimeoutError:
        return failed(f"gave no answer within {options.timeout_s:g} s", NoAnswerError)
    except APIConnectionError as error:
        raise NoAnswerError(target.base_url, f"stopped answering: {why(error, client)}") from error
    except _Unreadable:
        return failed(OTHER_PROTOCOL, RefusedError)
    if made is None:
        return failed(SILENT, RefusedError)
    return Outcome(made.model_copy(update={"seconds": time.monotonic() - started}))


def _ask_readable(client: OpenAI, target: Target, request: Request, options: BatchOptions) -> Completion | None:
    """The answer; None when it holds no choice. Nonsense is asked again at once, a few times."""
    for _ in range(UNREADABLE_ATTEMPTS):
        try:
            return _read(request, _create(client, target, request, options))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            continue
    raise _Unreadable


def _create(client: OpenAI, target: Target, request: Request, options: BatchOptions) -> Any:
    messages: Any = request.messages
    body: Any = {"model": target.model, "max_tokens": options.max_tokens, "temperature": options.temperature}
    if request.response_format:
        body["response_format"] = request.response_format
    if request.prompt:
        return client.completions.create(prompt=request.prompt, **body)
    return client.chat.completions.create(messages=messages, **body)


def _read(request: Request, made: Any) -> Completion | None:
    if not made.choices:
        return None
    choice = made.choices[0]
    text = (choice.text if request.prompt else choice.message.content) or ""
    usage = made.usage
    return Completion(
        id=request.id,
        text=text.encode("utf-8", "replace").decode(),  # half a surrogate pair cannot be written to a file
        tokens=usage.completion_tokens if usage else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        truncated=choice.finish_reason == "length",
    )
