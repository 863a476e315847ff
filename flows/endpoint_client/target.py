"""Which endpoint, and a client for it; what goes wrong is said in words, and the key is never among them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import Field

from flows.config import Config
from flows.endpoint_client import routes
from flows.endpoint_client.deadline import Deadline
from flows.endpoint_client.errors import NoAnswerError, RefusedError

if TYPE_CHECKING:
    from openai import OpenAI

NO_KEY = "none"  # for servers that ask for none; the client insists on one
TIMEOUT_S = 120.0
CHECK_TIMEOUT_S = 10.0
OTHER_PROTOCOL = "answers, but not as an OpenAI-compatible API (the URL of one mostly ends in /v1)"
MOST = 200  # characters of an error


class Target(Config):
    """An OpenAI-compatible endpoint. The key itself stays in the environment variable named here."""

    base_url: str = Field(
        title="Base URL", description="Up to and with /v1, for instance http://127.0.0.1:8000/v1.", min_length=1
    )
    model: str = Field(title="Model", description="The name under which the endpoint knows the model.")
    api_key_env: str = Field(
        default="",
        title="Key variable",
        description="Name of the environment variable that holds the key; empty for an open endpoint.",
    )


def make_client(
    target: Target, key: str = "", timeout_s: float = TIMEOUT_S, deadline: Deadline | None = None
) -> OpenAI:
    """A client that asks once: who uses it decides what is asked again.

    `key` comes before the environment variable of the target. `timeout_s` counts between two bytes of an answer;
    `deadline` ends all of its requests.
    """
    from openai import DefaultHttpxClient, OpenAI  # here: it takes 0.6 s, and most processes only read a Target

    key = key or (os.environ.get(target.api_key_env, "") if target.api_key_env else "")
    own = routes.on_this_machine(target.base_url)
    route = routes.of(target.base_url)
    # Without the environment httpx does not look at SSL_CERT_FILE, which may name who signed a front's certificate.
    here = own and target.base_url.startswith("https:")
    verify = (route and route.tls) or (ssl.create_default_context() if here else True)
    hooks = [_adding(route.headers)] if route else []
    if deadline:
        hooks.append(lambda request: request.extensions.update(trace=deadline.trace))
    http: Any = DefaultHttpxClient(
        trust_env=not own, timeout=timeout_s, verify=verify, event_hooks={"request": hooks, "response": []}
    )
    return OpenAI(
        base_url=target.base_url,
        api_key=key or NO_KEY,
        max_retries=0,
        timeout=timeout_s,
        http_client=http,
    )


def _adding(headers: Callable[[], dict[str, str]]) -> Callable[[httpx.Request], None]:
    """Before each request, since a long run outlives a cluster's token.

    Asked once here too: an error, as of a kubeconfig, is told in its own words and not as a lost connection.
    """
    headers()
    return lambda request: request.headers.update(headers())


def models(target: Target, key: str = "") -> list[str]:
    """The names of the models that the endpoint has; asked twice at most.

    Raises:
        NoAnswerError: nobody answers there.
        RefusedError: it does not tell us (wrong key, no such path), or speaks another protocol.
    """
    from openai import APIError, APIStatusError

    with (
        Deadline(2 * CHECK_TIMEOUT_S) as deadline,
        make_client(target, key, CHECK_TIMEOUT_S, deadline).with_options(max_retries=1) as client,
    ):
        try:
            return [str(model.id) for model in client.models.list()]
        except APIStatusError as error:
            kind = NoAnswerError if error.status_code >= 500 else RefusedError
            raise kind(target.base_url, f"refuses us ({why(error, client)})") from error
        except APIError as error:
            raise NoAnswerError(target.base_url, f"does not answer ({why(error, client)})") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise RefusedError(target.base_url, OTHER_PROTOCOL) from error


def check(target: Target, key: str = "") -> None:
    """Find out now that the endpoint is there, takes our key and has the model.

    An endpoint that lists no models at all passes: some gateways do not.

    Raises:
        NoAnswerError: nobody answers there.
        RefusedError: wrong key, no such model, another protocol.
    """
    names = models(target, key)
    if names and target.model not in names:
        raise RefusedError(target.base_url, f"has no model '{target.model}'. It has: {', '.join(names[:10])}")


def why(error: Exception, client: OpenAI) -> str:
    """The error in one line, without the API key, which some servers repeat."""
    from openai import AuthenticationError

    if isinstance(error, AuthenticationError):
        return "the API key is refused"
    text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return text.replace(client.api_key, "(key)")[:MOST] if client.api_key != NO_KEY else text[:MOST]
