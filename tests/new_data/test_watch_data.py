"""The flow watch-data, look after look, with a Prefect that only notes what it is asked."""

import logging
import os

import pytest

from flows import watch_data as module
from flows.errors import ConfigError
from flows.new_data.change import Watched

NAME = "domain-adaptation/mine"


class FakePrefect:
    def __init__(self):
        self.started = []
        self.events = []
        self.no_room = False

    def start(self, watched, change):
        self.started.append(change.words)
        number = watched.number + 1
        return Watched(
            deployment=watched.deployment,
            places=watched.places,
            number=number,
            digest=change.digest,
            files=change.files,
            run_id=f"run-{number}",
            run_name=f"otter-{number}",
            time="2026-11-26T02:30:00+00:00",
        )


@pytest.fixture
def prefect(monkeypatch):
    fake = FakePrefect()
    monkeypatch.setattr(module, "parameters_of", lambda deployment: {"sources": {"folder": "/no/such"}})
    monkeypatch.setattr(module, "start", fake.start)
    monkeypatch.setattr(module, "emit", lambda watched, change: fake.events.append((watched.run_id, change.words)))
    monkeypatch.setattr(module, "turned_away", lambda watched: fake.no_room)
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("watch-data"))
    monkeypatch.setattr(module, "failed", lambda error: error)
    return fake


@pytest.fixture
def look(tmp_path):
    def once(places=(str(tmp_path / "data"),)):
        end = module.watch_data.fn(NAME, list(places), settle_s=0.01, longest_s=1, store=str(tmp_path / "store"))
        return getattr(end, "message", end)

    (tmp_path / "data").mkdir()
    return once


def test_each_state_of_the_data_starts_one_run(prefect, look, tmp_path):
    file = tmp_path / "data" / "terms.csv"
    assert look() == "There is no data yet, so nothing is started."
    file.write_text("FOB")
    assert look() == f"1 added (terms.csv): started {NAME} as otter-1."
    assert look() == "Nothing new in 1 file since otter-1 (2026-11-26T02:30:00+00:00)."
    os.utime(file, (1, 1))
    assert look().startswith("Only times have changed, no content. Nothing new in 1 file since otter-1")
    assert look().startswith("Nothing new in 1 file"), "and the new time is known now"
    file.write_text("CIF")
    assert look() == f"1 changed (terms.csv): started {NAME} as otter-2."
    file.unlink()
    assert look() == f"There is no file in {tmp_path / 'data'}, so nothing is started."
    assert prefect.events == [("run-1", "1 added (terms.csv)"), ("run-2", "1 changed (terms.csv)")]


def test_a_run_that_found_no_room_is_started_again(prefect, look, tmp_path):
    (tmp_path / "data" / "terms.csv").write_text("FOB")
    look()
    prefect.no_room = True
    assert look() == (f"otter-1 was not begun, since another run was under way: started {NAME} as otter-2.")
    prefect.no_room = False
    assert look().startswith("Nothing new in 1 file since otter-2")


def test_without_places_the_data_of_the_deployment_is_looked_at(prefect, look):
    error = look(places=())
    assert isinstance(error, ConfigError)
    assert str(error) == "places[0]: there is no file or folder '/no/such'."
    assert prefect.started == []
