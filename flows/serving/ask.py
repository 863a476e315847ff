"""Talk to an endpoint: one question from Python, or a line to paste into a shell."""

from __future__ import annotations

import json
import shlex
from typing import Any

import httpx

from flows.errors import ServingError, TransientError
from flows.serving import access, probe
from flows.serving.endpoint import Endpoint
from flows.serving.plain import plain

TIMEOUT_S = 300.0


def ask(endpoint: Endpoint, question: str, instruction: str = "", max_tokens: int = 64) -> str:
    """The model's reply, greedy, at most `max_tokens` tokens. `instruction` stands before the question, as in training.

    The server itself is asked, past a front.

    Raises:
        TransientError: nobody answers at the endpoint's URL.
        ServingError: the endpoint answers with an error.
    """
    url = f"{endpoint.url}/chat/completions"
    if not endpoint.model:  # an unverified endpoint's name may never have been learned
        try:
            endpoint = endpoint.model_copy(update={"model": probe.identity(endpoint)})
        except probe.ProbeError as error:
            raise ServingError(f"The endpoint {endpoint.name} does not say which model to ask for: {error}") from error
    try:
        body = _body(endpoint, question, instruction, max_tokens)
        response = access.request(endpoint, "POST", url, TIMEOUT_S, body, connect_s=5)
    except httpx.HTTPError as error:
        raise TransientError(
            f"The endpoint {endpoint.name} does not answer at {url}: {error or type(error).__name__}. "
            f"{endpoint.log_words}".rstrip()
        ) from error
    if response.status_code != 200:
        raise ServingError(
            f"{url} answered {response.status_code}: {plain(response.text, 300)}\n{endpoint.log_words}".rstrip()
        )
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except probe.WRONG_SHAPE as error:
        said = plain(response.text, 300)
        raise ServingError(f"{url} answered no completion: {said}\n{endpoint.log_words}".rstrip()) from error


def curl_line(
    endpoint: Endpoint, question: str, instruction: str = "", max_tokens: int = 64, *, folded: bool = False
) -> str:
    """A shell command that asks the same, on one line or `folded` into three."""
    body = json.dumps(_body(endpoint, question, instruction, max_tokens), ensure_ascii=False)
    url = shlex.quote(f"{endpoint.public_url}/chat/completions")
    words = [f"curl -s {url}", "-H 'Content-Type: application/json'"]
    if endpoint.key_variable:
        words.append(f'-H "Authorization: Bearer ${endpoint.key_variable}"')
    return (" \\\n  " if folded else " ").join([*words, f"-d {shlex.quote(body)}"])


def python_lines(endpoint: Endpoint, question: str, max_tokens: int = 64) -> str:
    """Python that asks the same, by the `openai` client; a token, if the endpoint wants one, from the environment.

    One that wants none may be somebody else's: it is sent none, whatever the environment holds.
    """
    variable = endpoint.key_variable
    key = f'os.environ["{variable}"]' if variable else '"none"'
    return f"""{"import os" + chr(10) if variable else ""}from openai import OpenAI

client = OpenAI(
    base_url={json.dumps(endpoint.public_url)},
    api_key={key},
)
answer = client.chat.completions.create(
    model={json.dumps(endpoint.model)},
    messages=[{{"role": "user", "content": {json.dumps(question)}}}],
    max_tokens={max_tokens},
    temperature=0,
)
print(answer.choices[0].message.content)"""


def _body(endpoint: Endpoint, question: str, instruction: str, max_tokens: int) -> dict[str, Any]:
    content = f"{instruction}\n{question}" if instruction else question
    messages = [{"role": "user", "content": content}]
    return {"model": endpoint.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
