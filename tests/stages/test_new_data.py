from types import SimpleNamespace

import pytest
from prefect.states import Cancelled, Completed

from flows.errors import ConfigError
from flows.new_data.change import Watched
from flows.stages import new_data

RUN = "0192aa10-7c1e-7b90-a6a2-0a53b1e0d0c1"
LIMIT = "Deployment concurrency limit reached."


@pytest.mark.parametrize(
    ("state", "run_count", "away"),
    [
        (Cancelled(message=LIMIT), 0, True),
        (Cancelled(message="by hand"), 0, False),
        (Cancelled(message=LIMIT), 1, False),
        (Completed(), 1, False),
    ],
)
def test_a_run_that_found_no_room_is_told_from_one_that_a_person_cancelled(monkeypatch, state, run_count, away):
    run = SimpleNamespace(state=state, run_count=run_count)

    class Client:
        def __enter__(self):
            return SimpleNamespace(read_flow_run=lambda run_id: run)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(new_data, "get_client", lambda **_: Client())
    assert new_data.turned_away(Watched(deployment="a/b", places=["c"], run_id=RUN)) is away
    assert new_data.turned_away(Watched(deployment="a/b", places=["c"])) is False


def test_one_state_of_the_data_has_one_key(monkeypatch):
    keys = []

    def run(deployment, idempotency_key, **_):
        keys.append(idempotency_key)
        return SimpleNamespace(id=RUN, name="brave-otter")

    monkeypatch.setattr(new_data, "run_deployment", run)
    one, other = (SimpleNamespace(digest=digest * 64, files={}) for digest in "ab")
    nothing = Watched(deployment="a/b", places=["c"])
    first = new_data.start(nothing, one)
    assert new_data.start(nothing, one).run_name == "brave-otter"
    back = new_data.start(new_data.start(first, other), one)
    assert keys[0] == keys[1], "killed before it was noted: the same run"
    assert len({keys[0], *keys[2:]}) == 3, "data that is again as it was is new all the same"
    assert back.number == 3


def test_a_watcher_is_nothing_to_start():
    with pytest.raises(ConfigError, match="^deployment: watch-data/nightly only watches. "):
        new_data.parameters_of("watch-data/nightly")
