import contextlib

import httpx
import pytest

from flows.errors import ServingError
from flows.serving.config import ServeConfig
from flows.serving.front import folder, haproxy, lifecycle
from tests.serving.front.model import Model


@pytest.fixture(autouse=True, scope="session")
def _installed():
    try:
        haproxy.program()
    except ServingError as error:
        pytest.skip(str(error))


@pytest.fixture
def endpoints(tmp_path):
    """A folder of endpoints; whatever front was started in it is stopped."""
    place = tmp_path / "endpoints"
    yield place
    for path in place.glob("*/front/process.json"):
        with contextlib.suppress(ServingError):
            record = folder.load(place, path.parents[1].name)
            lifecycle.stop(record.model_copy(update={"options": record.options.model_copy(update={"drain_s": 1})}))


@pytest.fixture
def servers():
    """Two model servers."""
    both = Model(), Model()
    yield both
    for model in both:
        model.close()


@pytest.fixture
def client():
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def start(endpoints):
    """Have a front by these options."""

    def start(name="terms", **options):
        return lifecycle.ensure(ServeConfig(name=name, front={"enabled": True, "drain_s": 5, **options}), endpoints)

    return start
