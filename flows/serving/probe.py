"""Is it really serving? One function a question, cheapest first; each returns, or raises with what is wrong."""

from __future__ import annotations

from typing import Any

import httpx

from flows.serving.endpoint import Endpoint
from flows.serving.registry import RUNTIMES
from flows.serving.state import State

READY_TIMEOUT_S = 5.0
IDENTITY_TIMEOUT_S = 5.0
GENERATION_TIMEOUT_S = 15.0


class ProbeError(Exception):
    """A probe's answer is no; the text says why. `state` is what that makes of the endpoint."""

    state = State.UNHEALTHY


class ProcessEndedError(ProbeError):
    """There is no process to ask."""

    state = State.FAILED


class GenerationError(ProbeError):
    """The model was asked and gave no usable answer."""


class SlowError(ProbeError):
    """The model gave no answer in time: busy or stuck, from outside the two look the same."""

    state = State.DEGRADED


def process_alive(endpoint: Endpoint) -> None:
    """Whether the process that was started still runs.

    Raises:
        ProcessEndedError: it does not.
    """
    if not RUNTIMES[endpoint.runtime].alive(endpoint.process):
        raise ProcessEndedError(f"Process {endpoint.process.pid} has ended; its log is {endpoint.log}.")


def ready(endpoint: Endpoint) -> None:
    """Whether the server calls itself ready (that can be wrong: a hung engine may still answer here).

    Raises:
        ProbeError: no answer, or another one than 200.
    """
    response = _request("GET", endpoint.ready_url, READY_TIMEOUT_S)
    if response.status_code != 200:
        raise ProbeError(f"GET {endpoint.ready_url} answered {response.status_code}.")


def identity(endpoint: Endpoint) -> None:
    """Whether the server lists the model it was started for.

    Raises:
        ProbeError: no answer, no list, or another model.
    """
    url = f"{endpoint.url}/models"
    response = _request("GET", url, IDENTITY_TIMEOUT_S)
    try:
        served = [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"GET {url} answered {response.status_code} and no list of models.") from error
    if endpoint.model not in served:
        raise ProbeError(f"It serves {', '.join(served) or 'no model'}, not {endpoint.model}.")


def generation(endpoint: Endpoint, timeout_s: float = GENERATION_TIMEOUT_S) -> None:
    """Whether the model answers a question. 16 tokens: a model that thinks first says nothing within fewer.

    Raises:
        SlowError: no answer within `timeout_s` seconds.
        GenerationError: an error, or an answer without a token.
    """
    url = f"{endpoint.url}/chat/completions"
    messages = [{"role": "user", "content": "Say one word."}]
    body = {"model": endpoint.model, "messages": messages, "max_tokens": 16, "temperature": 0}
    response = _request("POST", url, timeout_s, body, SlowError)
    if response.status_code != 200:
        raise GenerationError(f"POST {url} answered {response.status_code}: {response.text[:300]}")
    try:
        answer = response.json()
        tokens = (answer.get("usage") or {}).get("completion_tokens") or 0
        text = answer["choices"][0]["message"].get("content") or ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise GenerationError(f"POST {url} answered no chat completion: {response.text[:300]}") from error
    if tokens < 1 and not text:
        raise GenerationError(f"POST {url} answered without a single token.")


def verify(endpoint: Endpoint, generation_timeout_s: float = GENERATION_TIMEOUT_S) -> None:
    """Ask everything, cheapest first; returning means HEALTHY.

    Raises:
        ProbeError: the first question that was not answered well.
    """
    process_alive(endpoint)
    ready(endpoint)
    identity(endpoint)
    generation(endpoint, generation_timeout_s)


def check(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its true state, asked for now, and the reason for it."""
    try:
        verify(endpoint)
    except ProbeError as error:
        return endpoint.model_copy(update={"state": error.state, "why": str(error)})
    return endpoint.model_copy(update={"state": State.HEALTHY, "why": ""})


def _request(
    method: str, url: str, timeout_s: float, body: dict[str, Any] | None = None, late: type[ProbeError] = ProbeError
) -> httpx.Response:
    """One request, past the environment's proxies: they are not meant for this machine."""
    try:
        return httpx.request(method, url, json=body, timeout=timeout_s, trust_env=False)
    except httpx.TimeoutException as error:
        raise late(f"No answer within {timeout_s:g} s from {url}.") from error
    except httpx.HTTPError as error:
        raise ProbeError(f"{method} {url}: {error or type(error).__name__}.") from error
