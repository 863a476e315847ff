"""Many starts and stops leave nothing but what is kept on purpose: the record, the last revisions, the last logs."""

import os
import tempfile
from pathlib import Path

import psutil
import pytest

from flows.serving import old_logs, records, start
from flows.serving.revisions import KEPT
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint

CYCLES = 100


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.fault(
    "100 start/stop cycles",
    on="processes",
    expected="no process, port, record beside, lock holder, open file or temporary file is left",
    action=f"kept on purpose: the record, {KEPT + 1} revisions, {old_logs.KEPT} logs",
)
def test_a_hundred_cycles_leave_nothing(world, seen, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "POLL_S", 0.02)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    ports = set()
    children, descriptors = psutil.Process().children(), os.listdir("/proc/self/fd")
    seen.begin()
    for number in range(CYCLES):
        endpoint = world.start(threads=1 + number % 2)
        assert endpoint.state is State.HEALTHY
        ports.add(endpoint.port)
        stopped = stop_endpoint("fake", world.folder)
        assert stopped.why == f"Ended process {endpoint.process.pid}."
    seen(stopped)
    assert process.list_owned(world.folder) == []
    assert [one.pid for one in psutil.Process().children()] == [one.pid for one in children]
    assert not [port for port in ports if process.port_served(port)]
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    assert records.names(world.folder) == ["fake"]
    left = files(world.folder)
    logs = {name for name in left if name.startswith("logs/")}
    assert len(logs) == old_logs.KEPT
    assert f"logs/{Path(endpoint.log).name}" in logs
    kept = {f"fake/revisions/{number}.json" for number in range(CYCLES - KEPT, CYCLES + 1)}
    assert left - logs == {"fake.json", ".fake.lock", ".fake.promotion.lock", *kept}
    assert list(temporary.iterdir()) == []


def test_logs_of_other_names_and_of_what_serves_are_kept(world):
    endpoint = world.start()
    replica = endpoint.model_copy(update={"name": "fake.2"})
    replica_log = world.folder / "logs" / "fake-20200101T000000-000000.log"
    replica = replica.model_copy(update={"process": replica.process.model_copy(update={"log": str(replica_log)})})
    records.save(world.folder, replica)
    logs = world.folder / "logs"
    newer = [logs / f"fake-29990101T0000{n:02}-000000.log" for n in range(old_logs.KEPT + 3)]
    others = [logs / name for name in ("fake-2-20200101T000000-000000.log", "pull-fake.log", "fake-notes.log")]
    for log in [replica_log, *newer, *others]:
        log.touch()
    (world.folder / "fake.3.json").write_text("torn")
    old_logs.forget_old_logs(world.folder, "fake")
    assert len(list(logs.iterdir())) == len([endpoint, replica, *newer, *others]), (
        "nobody knows what the torn one names"
    )
    records.delete(world.folder, "fake.3")
    old_logs.forget_old_logs(world.folder, "fake")
    assert set(logs.iterdir()) == {Path(endpoint.log), replica_log, *others, *newer[4:]}
    records.delete(world.folder, "fake.2")
