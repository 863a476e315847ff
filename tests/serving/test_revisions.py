"""Revisions of a name, and going back to one, with a fake server and with real ones."""

import json
import os
import shutil
import signal
import time
from datetime import timedelta

import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, records, revisions
from flows.serving.ask import ask
from flows.serving.causes import StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import Maker, start_endpoint
from flows.serving.revisions import KEPT, Revision
from flows.serving.roll_back import roll_back
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.watch import watch
from tests.serving.test_watch import NOON, World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    stop_endpoint("fake", world.folder)


def revision(**changes):
    values = {"number": 0, "promoted": "2026-01-01T00:00:00+00:00", "model_dir": "/m", "config": ServeConfig(name="a")}
    return Revision.model_validate(values | changes)


def test_the_last_five_former_ones_are_kept_and_numbers_are_never_given_twice(tmp_path):
    for number in range(1, 9):
        assert revisions.keep(tmp_path, revision(model_dir=f"/m{number}"), number - 1) == number
    assert revisions.numbers(tmp_path, "a") == [3, 4, 5, 6, 7, 8]
    assert len(revisions.numbers(tmp_path, "a")) == KEPT + 1
    assert revisions.load(tmp_path, "a", 3).model_dir == "/m3"
    with pytest.raises(ServingError, match=r"Revision 2 of a is not kept\. Kept are: 3, 4, 5, 6, 7, 8\."):
        revisions.load(tmp_path, "a", 2)
    shutil.rmtree(tmp_path / "a")
    assert revisions.keep(tmp_path, revision(), 8) == 9


def test_the_same_model_with_the_same_settings_is_the_same_revision(tmp_path):
    assert revisions.keep(tmp_path, revision(), 0) == 1
    assert revisions.keep(tmp_path, revision(run_id="another"), 1) == 1
    assert revisions.keep(tmp_path, revision(config=ServeConfig(name="a", threads=2)), 1) == 2


def test_a_damaged_revision_is_named(tmp_path):
    revisions.keep(tmp_path, revision(), 0)
    (tmp_path / "a" / "revisions" / "1.json").write_text('{"number": 1}')
    with pytest.raises(ServingError, match=r"1\.json is no revision \(promoted: Field required\)"):
        revisions.load(tmp_path, "a", 1)


@pytest.mark.parametrize("damage", ["a text", "a folder"])
def test_a_damaged_current_revision_is_not_the_same_and_the_next_number_is_given(tmp_path, damage):
    revisions.keep(tmp_path, revision(), 0)
    path = tmp_path / "a" / "revisions" / "1.json"
    path.unlink()
    path.mkdir() if damage == "a folder" else path.write_text("{")
    assert revisions.keep(tmp_path, revision(), 1) == 2
    assert revisions.load(tmp_path, "a", 2).same(ServeConfig(name="a"), "/m")
    for number in range(3, 9):
        assert revisions.keep(tmp_path, revision(model_dir=f"/m{number}"), number - 1) == number


def test_the_same_model_again_writes_its_damaged_revision_anew(world):
    first = world.start()
    path = world.folder / "fake" / "revisions" / "1.json"
    path.write_text("{")
    assert world.start() == first
    mended = revisions.load(world.folder, "fake", 1)
    assert (mended.number, mended.model_dir) == (1, str(world.model))
    assert mended.config.command == world.config.command
    path.write_text("{")
    assert world.start(threads=2).revision == 2


def test_no_secret_is_in_a_revision(world, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    world.start(secret_variables=["MY_TOKEN"])
    text = (world.folder / "fake" / "revisions" / "1.json").read_text()
    assert json.loads(text)["config"]["secret_variables"] == ["MY_TOKEN"]
    assert "s3cret" not in text


def test_going_back_and_back_again(world):
    first = world.start()
    second = world.start(threads=2)
    assert (first.revision, second.revision) == (1, 2)
    third = roll_back("fake", world.folder)
    assert (third.revision, third.state, third.settings) == (3, State.HEALTHY, first.settings)
    assert not process.alive(second.process)
    assert revisions.load(world.folder, "fake", 3).again == 1
    assert world.watch() == ["rolled-back", "healthy"]
    assert world.history.changes[0].why == "Revision 1 serves again."
    assert roll_back("fake", world.folder).settings == second.settings
    assert roll_back("fake", world.folder, to=1).settings == first.settings
    assert records.names(world.folder) == ["fake"]


def test_what_cannot_be_gone_back_to_is_told_and_nothing_changes(world):
    with pytest.raises(ServingError, match="There is no endpoint 'fake'"):
        roll_back("fake", world.folder)
    serving = world.start()
    with pytest.raises(ServingError, match="no revision of fake before 1"):
        roll_back("fake", world.folder)
    with pytest.raises(ServingError, match="Revision 1 is what fake serves now"):
        roll_back("fake", world.folder, to=1)
    with pytest.raises(ServingError, match="Revision 7 of fake is not kept"):
        roll_back("fake", world.folder, to=7)
    assert records.load(world.folder, "fake") == serving
    assert listing.list_records(world.folder) == [serving]


def test_a_revision_that_does_not_start_any_more_leaves_the_current_one_serving(world):
    world.start()
    serving = world.start(threads=2)
    world.file.write_text('{"die": true}')
    with pytest.raises(StartError, match="Cause: out of memory"):
        roll_back("fake", world.folder)
    world.flags()
    assert listing.list_records(world.folder) == [serving]
    assert revisions.numbers(world.folder, "fake") == [1, 2]


@pytest.mark.end_to_end
def test_a_real_model_is_taken_back_to_a_former_one_killed_and_started_again(llama, tmp_path):
    other = shutil.copytree(llama, tmp_path / "other")
    folder = tmp_path / "endpoints"
    config = ServeConfig(name="real")
    try:
        start_endpoint(config, llama, folder, silent, Maker(model_uri="models/a"))
        start_endpoint(config, other, folder, silent, Maker(model_uri="models/b"))
        notes = []
        back = roll_back("real", folder, progress=lambda done, total, note="", /, **_: notes.append(note))
        assert (back.model, back.model_uri, back.revision) == (str(llama), "models/a", 3)
        assert listing.list_records(folder) == [back]
        assert notes[-1] == f"real.next is healthy at {back.url}"
        assert [change.what for change in watch(folder, NOON)] == ["rolled-back", "healthy"]

        os.kill(back.process.pid, signal.SIGKILL)
        # Its threads end a moment later; the restart, which is 10 s away for a real clock, would find its port taken.
        while process.alive(back.process) or process.port_served(back.port):
            time.sleep(0.01)
        assert [change.what for change in watch(folder, NOON + timedelta(seconds=60))] == ["failed"]
        assert [change.what for change in watch(folder, NOON + timedelta(seconds=120))] == ["starting"]
        deadline = time.monotonic() + 120
        while not (changes := watch(folder, NOON + timedelta(seconds=180))) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert [change.what for change in changes] == ["healthy"]
        again = records.load(folder, "real")
        assert (again.model, again.url, again.revision) == (str(llama), back.url, 3)
        assert isinstance(ask(again, "Hi?", max_tokens=2), str)
    finally:
        stop_endpoint("real", folder)
