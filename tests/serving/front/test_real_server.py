"""A real model server behind a front, with TLS and a token too, asked by curl, the OpenAI client and ours."""

import httpx
import pytest

from flows.endpoint_client.load import load_run
from flows.endpoint_client.request import Request
from flows.serving import records
from flows.serving.access import public_target
from flows.serving.endpoint import KEY_VARIABLE
from flows.serving.front import following, tokens, traffic
from tests.serving.front.certificates import make
from tests.serving.verifications import the_three_ways_of_asking


def test_the_three_verifications_pass_through_the_front(served, start, endpoints):
    front = start(name="shared")
    endpoint = served.model_copy(update={"front": front})
    following.send_all_to(endpoint)
    the_three_ways_of_asking(endpoint.model_copy(update={"url": endpoint.public_url}))
    assert traffic.statistics(front)[following.address(served)].errors == 0


def test_our_client_asks_with_tls_and_a_token(served, start, endpoints, tmp_path, monkeypatch):
    pem = make(tmp_path / "front.pem")
    front = start(name="shared", access="token", tls_certificate=str(pem))
    endpoint = served.model_copy(update={"front": front})
    records.save(endpoints, endpoint)
    following.send_all_to(endpoint)
    monkeypatch.setenv(KEY_VARIABLE, tokens.issue(endpoints, "shared", "ours", 1))
    question = [Request(id="a", messages=[{"role": "user", "content": "Why?"}])]
    refused = load_run(public_target(endpoint), question, 1, 1, 4)
    assert (refused.errors, "certificate" in refused.first_error.lower() or "Connection" in refused.first_error) == (
        1,
        True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    found = load_run(public_target(endpoint), question, 2, 4, 4)
    assert (found.errors, found.first_error) == (0, "")
    monkeypatch.delenv(KEY_VARIABLE)
    assert "key is refused" in load_run(public_target(endpoint), question, 1, 1, 4).first_error
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{front.url}/models", trust_env=False)
