from pathlib import Path

import pytest

from flows.base_models.resolve import BaseModelConfig, resolve
from flows.progress import silent
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.promotion import Maker, start_endpoint
from flows.serving.stop import stop_endpoint


@pytest.fixture(autouse=True, scope="session")
def _offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("DO_NOT_TRACK", "1")
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def llama(models, _offline) -> Path:
    return Path(resolve(BaseModelConfig(name="tiny:llama-3"), models).path)


@pytest.fixture(scope="session")
def gemma(models, _offline) -> Path:
    return Path(resolve(BaseModelConfig(name="tiny:gemma-2"), models).path)


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def served(llama, store):
    """One real server for the tests that only talk to it."""
    config = ServeConfig(name="shared")
    endpoint = start_endpoint(config, llama, store / "endpoints", silent, Maker(run_id="run-1", model_uri="models/abc"))
    assert isinstance(endpoint, Endpoint)
    yield endpoint
    stop_endpoint("shared", store / "endpoints")
