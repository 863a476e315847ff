import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.store import attempts
from flows.store.artifacts import damage, publish
from flows.store.attempts import SupersededError, take
from flows.store.layout import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def output(folder, text="weights"):
    folder.mkdir(parents=True)
    (folder / "model").write_text(text)
    return folder


def test_only_the_newest_attempt_may_publish(store, tmp_path):
    old = take(store.attempts / "finetune-a")
    new = take(store.attempts / "finetune-a")
    with pytest.raises(SupersededError, match="Attempt 1 at finetune-a was taken for dead, and attempt 2 has taken"):
        publish(store, "model", output(tmp_path / "old"), {}, old)
    assert not list(store.artifacts.glob("*/*"))
    artifact = publish(store, "model", output(tmp_path / "new"), {}, new)
    assert damage(store, artifact) == ""


def test_another_key_is_another_matter(store):
    first = take(store.attempts / "finetune-a")
    take(store.attempts / "finetune-b")
    first.check()


def test_nobody_takes_over_while_an_attempt_commits(store):
    attempt = take(store.attempts / "finetune-a")
    taken = []
    other = threading.Thread(target=lambda: taken.append(take(store.attempts / "finetune-a")))
    with attempt.committing():
        other.start()
        other.join(0.3)
        assert taken == []
        attempt.check()
    other.join()
    assert taken[0].number == 2
    with pytest.raises(SupersededError), attempt.committing():
        pytest.fail("it was taken over")


def test_a_child_process_asks_for_the_attempt_it_works_for(store):
    attempt = take(store.attempts / "finetune-a")

    def ask():
        code = "from flows.store.attempts import check_own; check_own()"
        environment = os.environ | attempt.environment
        return subprocess.run([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2]).returncode

    assert ask() == 0
    take(store.attempts / "finetune-a")
    assert ask() == 1


def test_without_an_attempt_there_is_nothing_to_ask(monkeypatch):
    monkeypatch.delenv(attempts.ENVIRONMENT_VARIABLE, raising=False)
    attempts.check_own()


def test_two_writers_of_one_artifact_at_once_make_it_once(store, tmp_path):
    """Threads that publish the same content again and again: it is there once, whole, and nothing else is left."""
    start, found = threading.Barrier(4), []

    def write(number):
        for turn in range(5):
            folder = output(tmp_path / f"{number}-{turn}")
            start.wait()
            found.append(publish(store, "model", folder, {"writer": number}))

    writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(found) == 20
    assert len({artifact.path for artifact in found}) == 1
    assert [path.name for path in store.artifacts.glob("model/*")] == [Path(found[0].path).name]
    assert damage(store, found[0]) == ""
    assert not [path for path in tmp_path.iterdir() if path.name != "store"], "what lost is removed"


@given(st.lists(st.sampled_from(["take", "publish"]), max_size=12))
def test_whatever_the_order_only_the_last_taker_commits(tmp_path_factory, steps):
    file = tmp_path_factory.mktemp("attempts") / "key"
    held = [take(file)]
    for step in steps:
        if step == "take":
            held.append(take(file))
            continue
        for attempt in held[:-1]:
            with pytest.raises(SupersededError):
                attempt.check()
        with held[-1].committing():
            pass
    assert [attempt.number for attempt in held] == list(range(1, len(held) + 1))
