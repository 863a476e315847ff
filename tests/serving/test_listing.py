"""All endpoints as the list, the page and the command line show them."""

import os
import signal

import pytest

from flows.serving import listing, probe, records, revisions
from flows.serving.__main__ import main
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.stages.endpoints import seen
from flows.store.layout import Store
from tests.serving.test_probe import endpoint_at
from tests.serving.test_process import run

STOPPED = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"state": State.STOPPED})


@pytest.fixture
def folder(tmp_path):
    """Holds `good`, its replica, what is started beside it, and a damaged record that comes before them."""
    folder = Store(str(tmp_path)).endpoints
    for name in ("good", "good.2", "good.next"):
        records.save(folder, STOPPED.model_copy(update={"name": name}))
    (folder / "broken.json").write_text('{"name": "broken"}')
    return folder


def test_a_damaged_record_is_shown_as_failed_and_hides_no_other(folder):
    broken, good = listing.list_endpoints(folder)
    assert (broken.name, broken.state, good.name, good.state) == ("broken", State.FAILED, "good", State.STOPPED)
    assert broken.why.startswith(f"{folder}/broken.json is no endpoint record (url: Field required). Look for")
    assert listing.recorded(folder, "nobody") is None


def test_one_that_cannot_be_looked_at_hides_no_other(folder, monkeypatch):
    records.save(folder, STOPPED.model_copy(update={"name": "odd", "state": State.HEALTHY}))
    monkeypatch.setattr(probe, "check", lambda endpoint: int("many"))
    good, odd = listing.list_endpoints(folder)[1:]
    assert (good.state, odd.state) == (State.STOPPED, State.UNHEALTHY)
    assert odd.why.startswith("The look at it broke off (ValueError: invalid literal")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"runtime": "nope"}, "Value error, runtime nope has no ProcessRecord"),
        ({"runtime": "docker"}, "Value error, runtime docker has no ProcessRecord"),
        ({"url": "http://[::1"}, "url: Value error, no URL (Invalid port: ':1')"),
        ({"url": "http://a:99999"}, "url: Value error, no URL (Port out of range 0-65535)"),
        ({"name": "good"}, "name: good is not that of the file"),
    ],
)
def test_a_record_that_parses_but_cannot_be_is_shown_as_failed(tmp_path, changes, why):
    named = STOPPED.model_copy(update={"name": "wrong", "state": State.HEALTHY})
    (tmp_path / "wrong.json").write_text(named.model_copy(update=changes).model_dump_json())
    records.save(tmp_path, STOPPED.model_copy(update={"name": "good"}))
    good, wrong = listing.list_endpoints(tmp_path)
    assert (good.state, wrong.state) == (State.STOPPED, State.FAILED)
    assert wrong.why.startswith(f"{tmp_path}/wrong.json is no endpoint record ({why}).")


def test_what_is_no_file_is_shown_as_failed(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to("loop.json")
    folder, loop = listing.list_endpoints(tmp_path)
    assert folder.why == f"{tmp_path}/folder.json cannot be read (Is a directory): look at what is there."
    assert (
        loop.why == f"{tmp_path}/loop.json cannot be read (Too many levels of symbolic links): look at what is there."
    )


def test_a_digit_that_is_no_number_names_no_replica_and_no_revision(tmp_path):
    records.save(tmp_path, STOPPED.model_copy(update={"name": "drip.²"}))
    records.save(tmp_path, STOPPED.model_copy(update={"name": "drip.2"}))
    assert [one.name for one in records.beside(tmp_path, "drip")] == ["drip.2"]
    (tmp_path / "drip" / "revisions").mkdir(parents=True)
    for number in ("²", "3"):
        (tmp_path / "drip" / "revisions" / f"{number}.json").touch()
    assert revisions.numbers(tmp_path, "drip") == [3]


def test_what_has_a_dot_in_its_name_is_recorded_but_no_endpoint(folder, tmp_path):
    assert [one.name for one in listing.list_records(folder)] == ["broken", "good", "good.2", "good.next"]
    assert [one.name for one in listing.list_endpoints(folder)] == ["broken", "good"]
    assert seen(Store(str(tmp_path))) == listing.list_endpoints(folder)


def test_the_command_line_lists_the_damaged_one_too(folder, tmp_path, capsys):
    assert main(["list", "--store", str(tmp_path)]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[:5]]
    assert rows[1] == ["broken", "FAILED", "-"]
    assert [row[0] for row in rows[2:]] == ["good", "good.2", "good.next"]


def test_one_that_cannot_be_stopped_keeps_no_other_from_it(folder, tmp_path, capsys):
    record = run("import time; time.sleep(600)", tmp_path / "log")
    try:
        records.save(folder, STOPPED.model_copy(update={"name": "late", "state": State.HEALTHY, "process": record}))
        assert main(["stop", "--all", "--store", str(tmp_path)]) == 1
        said = capsys.readouterr()
        assert f"late: It was stopped on request. Ended process {record.pid}." in said.out
        assert said.err.startswith(f"broken: {folder}/broken.json is no endpoint record")
        assert not process.alive(record)
    finally:
        if process.alive(record):
            os.kill(record.pid, signal.SIGKILL)


def test_what_is_stopped_is_not_asked(folder, tmp_path, capsys):
    assert main(["ask", "good", "Hi?", "--store", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("good is STOPPED: ")
    assert said.endswith("Serve it again with serve-variant.\n")
