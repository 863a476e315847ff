import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.serving.front.haproxy import write_private
from flows.store import files
from flows.store.files import name_beside, read_json, write_atomically, write_json


def test_threads_that_write_one_file_lose_nothing_and_leave_nothing(tmp_path):
    file, rounds = tmp_path / "a.json", range(50)
    values = [[number] * 20_000 for number in range(8)]
    start = threading.Barrier(len(values))

    def write(value):
        start.wait()
        for _ in rounds:
            write_json(file, value)
            assert read_json(file) in values

    with ThreadPoolExecutor(len(values)) as threads:
        list(threads.map(write, values))
    assert list(tmp_path.iterdir()) == [file]


def test_a_writer_in_another_container_with_the_same_process_and_thread_id_is_not_disturbed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(threading, "get_native_id", lambda: 1)
    file = tmp_path / "a.txt"
    others = name_beside(file)
    others.write_text("half of")
    write_atomically(file, "mine")
    write_private(file, "mine, for nobody else")
    assert others.read_text() == "half of"
    assert file.read_text() == "mine, for nobody else"


def test_what_was_left_behind_is_found_by_the_name_of_its_file(tmp_path):
    left = name_beside(tmp_path / "tiny-gemma-2")
    left.mkdir()
    assert list(tmp_path.glob(".tiny-gemma-2.*")) == [left]
    assert not list(tmp_path.glob("tiny*"))


def test_a_failed_private_write_leaves_nothing(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    try:
        write_private(tmp_path / "tokens.map", "secret")
    except OSError:
        assert list(tmp_path.iterdir()) == []
    else:
        raise AssertionError("the disk was full")


def test_a_word_of_ones_own_comes_once():
    assert len({files.own_word() for _ in range(1000)}) == 1000
