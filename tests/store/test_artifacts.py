import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.errors import ConfigError, DataError, RunEndedError
from flows.store.artifacts import damage, manifest, publish
from flows.store.files import write_atomically
from flows.store.layout import Store
from flows.store.locks import locked


def output(tmp_path, text="weights"):
    folder = tmp_path / "work" / "output"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text(text)
    return folder


def test_the_same_content_is_one_artifact(tmp_path):
    store = Store(str(tmp_path / "store"))
    first = publish(store, "model", output(tmp_path), {"stage": "finetune"})
    second = publish(store, "model", output(tmp_path), {"stage": "another"})
    assert first == second
    assert manifest(first)["made_from"] == {"stage": "finetune"}
    assert damage(store, first) == ""
    assert publish(store, "model", output(tmp_path, "others"), {}) != first


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("cut", "sub/a.txt is not what was written"),
        ("changed", "sub/a.txt is not what was written"),
        ("gone", "sub/a.txt is missing"),
        ("manifest", "it has no manifest"),
    ],
)
def test_a_damaged_artifact_is_found_and_replaced(tmp_path, harm, words):
    store = Store(str(tmp_path / "store"))
    artifact = publish(store, "model", output(tmp_path), {})
    file = Path(artifact.path) / "sub" / "a.txt"
    if harm == "cut":
        file.write_text("w")
    elif harm == "changed":
        file.write_text("wrights")
    elif harm == "gone":
        file.unlink()
    else:
        (Path(artifact.path) / "manifest.json").write_text("{")
    assert damage(store, artifact) == words
    assert publish(store, "model", output(tmp_path), {}) == artifact
    assert damage(store, artifact) == ""
    assert file.read_text() == "weights"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_lock_of_a_killed_holder_is_free(tmp_path):
    code = f"""
from pathlib import Path
from flows.store.locks import locked
import os, signal
with locked(Path({str(tmp_path / "lock")!r}), lambda: None):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    with locked(tmp_path / "lock", lambda: pytest.fail("somebody holds the lock")):
        pass


def test_who_waits_for_a_lock_can_give_up(tmp_path):
    def give_up(seconds):
        raise RunEndedError

    lock = tmp_path / "lock"
    with locked(lock, lambda: None), pytest.raises(RunEndedError), locked(lock, lambda: None, pause=give_up):
        pytest.fail("it is held")
    with locked(lock, lambda: pytest.fail("somebody holds the lock")):
        pass


def test_a_waiter_is_told_once_and_then_gets_the_lock(tmp_path):
    code = f"""
from pathlib import Path
from flows.store.locks import locked
import time
with locked(Path({str(tmp_path / "lock")!r}), lambda: None):
    print("held", flush=True)
    time.sleep(1)
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    told = []
    with locked(tmp_path / "lock", lambda: told.append(1), poll_s=0.1):
        assert told == [1]
    holder.wait()


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "../elsewhere", "sub", "nowhere"])
def test_a_link_to_what_would_not_come_along_is_refused(tmp_path, target):
    folder = output(tmp_path)
    (tmp_path / "work" / "elsewhere").write_text("x")
    (folder / "link").symlink_to(target)
    with pytest.raises(DataError, match=f"^link is a link to {target}. "):
        publish(Store(str(tmp_path / "store")), "files", folder, {})


def test_a_name_that_cannot_be_written_down_is_refused(tmp_path):
    folder = output(tmp_path)
    (folder / os.fsdecode(b"\xff.txt")).touch()
    with pytest.raises(DataError, match="udcff.txt' is no UTF-8"):
        publish(Store(str(tmp_path / "store")), "files", folder, {})


def test_a_link_to_a_file_beside_it_comes_along(tmp_path):
    folder = output(tmp_path)
    (folder / "link").symlink_to("sub/a.txt")
    store = Store(str(tmp_path / "store"))
    artifact = publish(store, "files", folder, {})
    assert damage(store, artifact) == ""
    assert Path(artifact.path, "link").read_text() == "weights"


def test_a_file_with_the_name_of_the_manifest_is_refused_and_not_lost(tmp_path):
    folder = output(tmp_path)
    (folder / "manifest.json").write_text("mine")
    with pytest.raises(DataError, match="manifest.json is the store's own file"):
        publish(Store(str(tmp_path / "store")), "files", folder, {})
    assert (folder / "manifest.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["artifacts", "locks", "work"])
def test_a_file_where_a_folder_of_the_store_goes_is_named(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError, match=f"^run.store: {tmp_path / name} is no folder"):
        Store(str(tmp_path), "run.store").check()


def test_an_address_is_no_folder():
    with pytest.raises(ConfigError, match="^run.store: 'http://host/store' is an address"):
        Store("http://host/store", "run.store")
