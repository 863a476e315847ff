import os

import pytest

from flows.errors import ConfigError
from flows.new_data import change as changes
from flows.new_data.change import Watched
from flows.new_data.files import look
from flows.new_data.sources import places_of

NAME = "domain-adaptation/nightly"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.json").write_text("[1]")
    (folder / "b.json").write_text("[2]")
    return folder


def seen(folder, change=None):
    return Watched(
        deployment=NAME,
        places=[str(folder)],
        files=change.files if change else {},
        digest=change.digest if change else "",
    )


def test_what_is_otherwise_is_named(data):
    first = changes.compare(look([str(data)]), seen(data))
    assert first.words == "2 added (a.json, b.json)"
    last = seen(data, first)
    assert changes.same_at_a_glance(look([str(data)]), last)
    (data / "a.json").write_text("[3]")
    (data / "b.json").unlink()
    (data / "c.json").write_text("[2]")
    files = look([str(data)])
    assert not changes.same_at_a_glance(files, last)
    change = changes.compare(files, last)
    assert change.words == "1 added (c.json), 1 changed (a.json), 1 removed (b.json)"
    assert change.digest != first.digest


def test_times_alone_are_no_change(data):
    first = changes.compare(look([str(data)]), seen(data))
    os.utime(data / "a.json", (1, 1))
    files = look([str(data)])
    assert not changes.same_at_a_glance(files, seen(data, first))
    again = changes.compare(files, seen(data, first))
    assert (again.digest, again.words) == (first.digest, "")


def test_it_waits_until_nobody_writes_any_more(data):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) < 3:
            (data / "a.json").write_text("[1" + ", 1" * len(naps))

    files, moving = changes.settled([str(data)], look([str(data)]), 10, 300, nap)
    assert (naps, moving) == ([10, 10, 10], [])
    assert files[str(data / "a.json")].size == len("[1, 1, 1")


def test_what_is_written_for_too_long_is_left_for_the_next_look(data):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        (data / "a.json").write_text("1" * 10 * len(naps))

    _, moving = changes.settled([str(data)], look([str(data)]), 10, 25, nap)
    assert (len(naps), moving) == (3, [str(data / "a.json")])


def test_the_last_state_is_kept_for_the_next_look(data, tmp_path):
    file = tmp_path / "watches" / f"{changes.watch_name(NAME, [str(data)])}.json"
    assert changes.load(file, NAME, [str(data)]) == Watched(deployment=NAME, places=[str(data)])
    watched = seen(data, changes.compare(look([str(data)]), seen(data)))
    changes.save(file, watched)
    assert changes.load(file, NAME, [str(data)]) == watched
    assert changes.watch_name("a", ["x", "y"]) == changes.watch_name("a", ["y", "x"]) != changes.watch_name("b", ["x"])


def test_the_places_of_a_deployment_are_those_of_its_sources():
    table, terms = {"path": "/data/a.csv"}, {"path": "terms"}
    sources = {"folder": "/field", "tables": [table, table], "terms": [terms, {"path": "sample:trade_en/terms"}]}
    assert places_of({"sources": sources}, NAME) == ["/field/terms", "/data/a.csv"]
    assert places_of({"sources": {"folder": "/field"}}, "pipeline/own") == ["/field"]


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        (None, "places: domain-adaptation/nightly names no data that can change. Put"),
        ({"terms": [{"path": "sample:trade_en/terms"}]}, "no data that can change, only samples. Put"),
        ({"surplus": 1}, "deployment: the sources of domain-adaptation/nightly are wrong"),
    ],
)
def test_data_that_cannot_change_is_refused(sources, why):
    with pytest.raises(ConfigError, match=why):
        places_of({"sources": sources}, NAME)
