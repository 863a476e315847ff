"""Is the endpoint there, does it take our key, has it the model; and no proxy or key where none belongs."""

import pytest

from flows.endpoint_client import routes
from flows.endpoint_client.errors import NoAnswerError, RefusedError
from flows.endpoint_client.target import Target, check, make_client, models, why
from tests.endpoint_client.conftest import KEY
from tests.serving.test_access import DRIPS, answering


def test_the_models_are_listed_with_the_key_of_the_variable_or_the_one_given(fake, target):
    assert models(target) == ["fake", "other"]
    assert models(target, "another") == ["fake", "other"]
    assert models(target.model_copy(update={"api_key_env": ""})) == ["fake", "other"]
    assert fake.keys == {f"Bearer {KEY}", "Bearer another", "Bearer none"}


def test_a_model_that_is_not_there_is_named_with_those_that_are(target):
    check(target)
    with pytest.raises(RefusedError, match=r"has no model 'big'. It has: fake, other\.$"):
        check(target.model_copy(update={"model": "big"}))


def test_an_endpoint_that_lists_no_models_passes(fake, target):
    fake.fault = lambda number, body: b'{"object": "list", "data": []}'
    check(target)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (401, RefusedError, r"refuses us \(the API key is refused\)\.$"),
        (404, RefusedError, r"refuses us \(Error code: 404"),
        (503, NoAnswerError, r"refuses us \(Error code: 503"),
        (b"<html>Welcome</html>", RefusedError, "answers, but not as an OpenAI-compatible API"),
        (b"[]", RefusedError, "answers, but not as an OpenAI-compatible API"),
        (b"{torn", RefusedError, "answers, but not as an OpenAI-compatible API"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(fake, target, fault, kind, words):
    fake.fault, fake.message = lambda number, body: fault, f"not for {KEY}"
    with pytest.raises(kind, match=words) as refused:
        check(target)
    assert fake.url in str(refused.value)
    assert KEY not in str(refused.value)


def test_nobody_there_may_come_later():
    with pytest.raises(NoAnswerError, match=r"http://127.0.0.1:9/v1 does not answer \(Connection error\)\.$"):
        check(Target(base_url="http://127.0.0.1:9/v1", model="m"))


def test_this_machine_is_not_asked_through_a_proxy(target, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    check(target)


def test_what_a_route_adds_is_asked_for_before_every_request(fake, target, monkeypatch):
    monkeypatch.setattr(routes, "_routes", {})
    tokens = iter(["early", "first", "second"])
    routes.add(target.base_url, routes.Route(lambda: {"Authorization": f"Bearer {next(tokens)}"}, None))
    with make_client(target) as client:
        client.models.list()
        assert fake.keys == {"Bearer first"}
        client.models.list()
    assert fake.keys == {"Bearer first", "Bearer second"}


def test_a_route_that_does_not_work_says_why_at_once(target, monkeypatch):
    def broken():
        raise NoAnswerError("https://cluster", "has a kubeconfig that cannot be used")

    monkeypatch.setattr(routes, "_routes", {})
    routes.add(target.base_url, routes.Route(broken, None))
    with pytest.raises(NoAnswerError, match="kubeconfig that cannot be used"):
        make_client(target)


def test_an_error_is_one_short_line_without_the_key(target):
    with make_client(target) as client:
        assert why(ValueError(f"first {KEY}.\nsecond"), client) == "first (key)"
        assert len(why(ValueError("x" * 1000), client)) == 200
        assert why(ValueError(), client) == "ValueError"


def test_a_list_that_drips_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("flows.endpoint_client.target.CHECK_TIMEOUT_S", 0.15)
    first, drop, last = DRIPS["body"]
    with answering([first, *[drop] * 60, last], 0.05) as url, pytest.raises(NoAnswerError, match="does not answer"):
        models(Target(base_url=f"{url}/v1", model="m"))
