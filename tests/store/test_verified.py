import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.store import digest, verified
from flows.store.artifacts import damage, publish
from flows.store.layout import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def artifact(store, tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    return publish(store, "model", folder, {})


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read."""
    seen = []
    monkeypatch.setattr(verified, "file_digest", lambda file: seen.append(file.name) or digest.file_digest(file))
    return seen


def test_what_was_written_here_is_not_read_again_until_it_changes(store, artifact, reads):
    assert (damage(store, artifact), reads) == ("", [])
    os.utime(Path(artifact.path) / "3.bin")
    assert (damage(store, artifact), reads) == ("", ["3.bin"])
    assert (damage(store, artifact), reads) == ("", ["3.bin"]), "it is known from then on"


def test_a_store_that_came_from_elsewhere_is_read_once(store, artifact, reads):
    for memo in store.verified.iterdir():
        memo.unlink()
    assert (damage(store, artifact), len(reads)) == ("", 5)
    assert (damage(store, artifact), len(reads)) == ("", 5)


def test_after_a_new_start_of_the_machine_all_is_read_again(store, artifact, reads, monkeypatch):
    monkeypatch.setattr(verified, "_boot", lambda: "another")
    assert (damage(store, artifact), len(reads)) == ("", 5)
    monkeypatch.undo()
    assert damage(store, artifact) == ""


def test_bytes_changed_behind_the_back_of_the_times_are_found(store, artifact):
    file = Path(artifact.path) / "2.bin"
    before = file.stat()
    file.write_bytes(b"x" * 1000)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert damage(store, artifact) == "2.bin is not what was written"


@pytest.mark.parametrize("kept", ["[1]", "{}", '{"a": 1}', "no JSON"])
def test_notes_that_are_no_such_notes_are_made_anew(store, artifact, kept):
    memo = store.memo(Path(artifact.path))
    memo.write_text(kept)
    assert damage(store, artifact) == ""
    assert "[" in memo.read_text()


def test_many_damaged_files_are_counted(store, artifact):
    for number in range(5):
        (Path(artifact.path) / f"{number}.bin").write_bytes(b"")
    assert damage(store, artifact).endswith("2.bin is not what was written and 2 more")


@given(st.data())
def test_any_one_changed_byte_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    store = Store(str(folder / "store"))
    content = data.draw(st.binary(min_size=1, max_size=200))
    (folder / "output").mkdir()
    (folder / "output" / "file").write_bytes(content)
    artifact = publish(store, "model", folder / "output", {})
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    (Path(artifact.path) / "file").write_bytes(content[:at] + bytes([other]) + content[at + 1 :])
    assert damage(store, artifact) == "file is not what was written"
