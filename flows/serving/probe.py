"""Is it really serving? One function a question, cheapest first; each returns, or raises with what is wrong."""

from __future__ import annotations

import contextlib
import reprlib
import socket
import time
from typing import Any, NamedTuple

import httpx

from flows.errors import ServingError
from flows.serving import access
from flows.serving.endpoint import Endpoint
from flows.serving.plain import plain
from flows.serving.registry import RUNTIMES
from flows.serving.state import State

IDENTITY_TIMEOUT_S = 5.0
GENERATION_TIMEOUT_S = 15.0
MOST_TOKENS = 1_000_000  # a server that counts more for the 16 asked for counts something else
LONGEST_NAME = 256  # characters of a model's name that is learned from its server
NAMES_SHOWN = 5
# What an answer of the wrong shape raises where it is taken apart: wrong types, no numbers, nested too deeply.
WRONG_SHAPE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)


class ProbeError(Exception):
    """A probe's answer is no; the text says why. `state` is what that makes of the endpoint."""

    state = State.UNHEALTHY

    def __init__(self, text: str) -> None:
        super().__init__(plain(text))  # it quotes the server


class ProcessEndedError(ProbeError):
    """There is no process to ask."""

    state = State.FAILED


class CertainError(ProbeError):
    """One such answer is enough: another model is served, or the server says itself that it cannot serve (503)."""


class Answer(NamedTuple):
    """A generation that came: its tokens, and the seconds from the request to its end."""

    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second, the wait for the first one included."""
        return self.tokens / max(self.seconds, 1e-9)


class GenerationError(ProbeError):
    """The model was asked and gave no usable answer."""


class SlowError(ProbeError):
    """The model gave no answer in time: busy or stuck, from outside the two look the same."""

    state = State.DEGRADED


class OverloadedError(SlowError):
    """The server says itself that it has too much to do (429)."""


class BusyError(SlowError):
    """The model gave no answer in time, and its engine shows that it is at work on others'."""


def process_alive(endpoint: Endpoint) -> None:
    """Whether the process or container that was started still runs.

    Raises:
        ProcessEndedError: it does not.
    """
    if not RUNTIMES[endpoint.runtime].alive(endpoint.process):
        raise ProcessEndedError(f"{endpoint.process.words.capitalize()} has ended; its log is {endpoint.log}.")


def listening(endpoint: Endpoint) -> None:
    """Whether somebody accepts connections at the endpoint's port; what they say is not asked.

    Raises:
        ProbeError: nobody does.
    """
    url = httpx.URL(endpoint.url)
    try:
        socket.create_connection(
            (url.host, url.port or (443 if url.scheme == "https" else 80)), timeout=endpoint.ready_timeout_s
        ).close()
    except OSError as error:
        raise ProbeError(f"Nobody listens at {url.host}:{url.port} ({error}).") from error


def ready(endpoint: Endpoint) -> None:
    """Whether the server calls itself ready (that can be wrong: a hung engine may still answer here).

    Raises:
        ProbeError: no answer, or with another status than the one that means ready.
    """
    response = _request(endpoint, "GET", endpoint.ready_url, endpoint.ready_timeout_s)
    if response.status_code != endpoint.ready_status:
        wanted = "" if endpoint.ready_status == 200 else f", not {endpoint.ready_status}"
        problem = CertainError if response.status_code == 503 else ProbeError
        raise problem(f"GET {endpoint.ready_url} answered {response.status_code}{wanted}.")


def identity(endpoint: Endpoint) -> str:
    """The name to ask the model by: the endpoint's own, once the server has shown that it serves that model.

    An endpoint that does not know its model's name (`identity` is `none`) takes the folder's path if the server
    lists that, else the first name.

    Raises:
        ProbeError: no answer, no list, or another model.
    """
    url = f"{endpoint.url}/models"
    response = _request(endpoint, "GET", url, IDENTITY_TIMEOUT_S)
    if response.status_code == 404 and endpoint.identity == "none" and endpoint.model:
        return endpoint.model
    try:
        served = {str(model["id"]): str(model.get("root", "")) for model in response.json()["data"]}
    except WRONG_SHAPE as error:
        raise ProbeError(f"GET {url} answered {response.status_code} and no list of models.") from error
    if not endpoint.model and served:
        return _learned(endpoint, served)
    if endpoint.model not in served:
        raise CertainError(f"It serves {_listed(served) or 'no model'}, not {endpoint.model or 'any'}.")
    if endpoint.identity == "root" and served[endpoint.model] != endpoint.root:
        raise CertainError(f"Its model {endpoint.model} is {served[endpoint.model] or 'unknown'}, not {endpoint.root}.")
    return endpoint.model


def generation(endpoint: Endpoint, timeout_s: float = GENERATION_TIMEOUT_S) -> Answer:
    """Whether the model answers. 16 tokens: a model that thinks first says nothing within fewer.

    A chat question, or plain text to go on with where the server or the model knows no chat.

    Returns:
        How many tokens came, at least 1, and how long the request that was answered took.

    Raises:
        SlowError: no answer within `timeout_s` seconds.
        OverloadedError: it was refused for having too much to do.
        GenerationError: an error, or an answer without a token.
    """
    body = {"model": endpoint.model, "max_tokens": 16, "temperature": 0}
    chat = {"messages": [{"role": "user", "content": "Say one word."}]}
    url = f"{endpoint.url}/chat/completions"
    began = time.monotonic()
    response = _request(endpoint, "POST", url, timeout_s, body | chat, SlowError)
    if response.status_code == 404 or (response.status_code == 400 and "chat template" in response.text):
        url = f"{endpoint.url}/completions"
        began = time.monotonic()
        response = _request(endpoint, "POST", url, timeout_s, body | {"prompt": "Say one word."}, SlowError)
    seconds = time.monotonic() - began
    if response.status_code != 200:
        problem = OverloadedError if response.status_code == 429 else GenerationError
        raise problem(f"POST {url} answered {response.status_code}: {response.text[:300]}")
    try:
        answer = response.json()
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        if not 0 <= tokens <= MOST_TOKENS:
            raise ValueError("no count of tokens")
        choice = answer["choices"][0]
        text = (choice["message"].get("content") if "message" in choice else choice["text"]) or ""
    except WRONG_SHAPE as error:
        raise GenerationError(f"POST {url} answered no completion: {response.text[:300]}") from error
    if tokens < 1 and not text:
        raise GenerationError(f"POST {url} answered without a single token.")
    return Answer(max(1, tokens), seconds)


def verify(endpoint: Endpoint, generation_timeout_s: float = GENERATION_TIMEOUT_S) -> Endpoint:
    """Ask everything, cheapest first.

    Returns:
        The endpoint, HEALTHY, with its model's name if it had none; or UNVERIFIED if it has no path to ask.

    Raises:
        ProbeError: the first question that was not answered well.
    """
    endpoint = reachable(endpoint)
    if not endpoint.ready_path:
        return endpoint
    generation(endpoint, generation_timeout_s)
    return endpoint.model_copy(update={"state": State.HEALTHY, "why": ""})


def reachable(endpoint: Endpoint) -> Endpoint:
    """Ask everything that costs the model nothing: does it live, is it ready, is it the right model?

    Returns:
        The endpoint with its model's name if it had none; UNVERIFIED if it has no path to ask.

    Raises:
        ProbeError: the first question that was not answered well.
    """
    process_alive(endpoint)
    if not endpoint.ready_path:
        listening(endpoint)
        if not endpoint.model:
            with contextlib.suppress(ProbeError):
                endpoint = endpoint.model_copy(update={"model": identity(endpoint)})
        why = "It has no health path: its process lives and its port is open, and that is all that is known."
        return endpoint.model_copy(update={"state": State.UNVERIFIED, "why": why})
    ready(endpoint)
    return endpoint.model_copy(update={"model": identity(endpoint)})


def page(endpoint: Endpoint, path: str, timeout_s: float) -> str:
    """What the server answers at a path of its own, as `/metrics`.

    Raises:
        ProbeError: nothing, or an error.
    """
    url = f"{endpoint.url.removesuffix('/v1')}{path}"
    response = _request(endpoint, "GET", url, timeout_s)
    if response.status_code != 200:
        raise ProbeError(f"GET {url} answered {response.status_code}.")
    return response.text


def check(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its true state, asked for now, and the reason for it."""
    try:
        return verify(endpoint)
    except ProbeError as error:
        return endpoint.model_copy(update={"state": error.state, "why": str(error)})


def _learned(endpoint: Endpoint, served: dict[str, str]) -> str:
    """The name by which an endpoint's model is asked for that came without one; it goes into records and messages."""
    name = next((name for name, root in served.items() if endpoint.model_dir in (name, root)), next(iter(served)))
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise ProbeError(f"It calls its model {reprlib.repr(name)}, which is no name: name the model in the settings.")
    return name


def _listed(names: dict[str, str]) -> str:
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in list(names)[:NAMES_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def _request(
    endpoint: Endpoint,
    method: str,
    url: str,
    timeout_s: float,
    body: dict[str, Any] | None = None,
    late: type[ProbeError] = ProbeError,
) -> httpx.Response:
    try:
        return access.request(endpoint, method, url, timeout_s, body)
    except httpx.TimeoutException as error:
        raise late(f"No answer within {timeout_s:g} s from {url}.") from error
    except httpx.HTTPError as error:
        raise ProbeError(f"{method} {url}: {error or type(error).__name__}.") from error
    except ServingError as error:
        raise ProbeError(str(error)) from error
