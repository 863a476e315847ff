"""A history that makes no sense is no history."""

import json

import pytest

from flows.serving import history
from flows.serving.history import Change, History, Sample
from flows.serving.state import State
from tests.serving.world import NOON


def good():
    change = Change(name="fake", at=NOON, what="healthy", before=None, after=State.HEALTHY)
    sample = Sample(NOON.timestamp(), 0.1, 20.0)
    return History(state=State.HEALTHY, since=NOON, misses=2, samples=[sample], changes=[change])


def test_it_is_read_back_as_written(tmp_path):
    history.save(tmp_path, "fake", good())
    assert history.load(tmp_path, "fake") == good()


@pytest.mark.parametrize(
    "senseless",
    [
        {"since": "2026-01-01T12:00:00"},
        {"start_until": "9999-12-31T23:59:59Z"},
        {"samples": [[1e300, 0.1, None, 0]]},
        {"holds": 10**30},
        {"misses": -1},
    ],
)
def test_a_senseless_one_is_begun_anew(tmp_path, senseless):
    history.save(tmp_path, "fake", good())
    path = tmp_path / "fake" / "history.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | senseless))
    assert history.load(tmp_path, "fake") == History()
