import pytest

from flows.endpoint_client import retry
from flows.endpoint_client.target import Target
from tests.endpoint_client.fake_endpoint import FakeEndpoint

KEY = "sk-very-secret-4711"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def fake():
    server = FakeEndpoint()
    yield server
    server.close()


@pytest.fixture
def target(fake, monkeypatch):
    monkeypatch.setenv("FAKE_KEY", KEY)
    return Target(base_url=fake.url, model="fake", api_key_env="FAKE_KEY")
