import os
import time

import pytest

from flows.store import garbage
from flows.store.artifacts import publish
from flows.store.files import write_json
from flows.store.layout import Store
from flows.store.locks import locked

OLD = time.time() - 90 * garbage.DAY_S


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def age(*paths, when=OLD):
    for path in paths:
        os.utime(path, (when, when))


def make(store, name, run="", old=True):
    """A finished stage with an artifact, used by a run."""
    output = store.work(name) / "output"
    output.mkdir(parents=True)
    (output / "weights").write_text(name * 100)
    artifact = publish(store, "model", output, {})
    path = store.artifacts / "model" / artifact.digest[:24]
    write_json(store.work(name) / garbage.DONE, {"artifact": artifact.model_dump(), "maker": {}})
    if run:
        write_json(store.run(run) / garbage.USES, {"finetune": {"key": name, "artifact": str(path)}})
    if old:
        age(path, store.work(name) / garbage.DONE, store.work(name))
    return path


def found(store, keep_runs=1, keep_days=30):
    return [one.path for one in garbage.find(store, keep_runs, keep_days)]


def test_what_nobody_needs_goes_and_its_word_first(store):
    gone, kept = make(store, "finetune-a"), make(store, "finetune-b", run="newest")
    assert found(store) == [gone]
    assert garbage.remove(store, garbage.find(store, 1, 30)) > 900
    assert (gone.exists(), kept.exists()) == (False, True)
    assert not (store.work("finetune-a") / garbage.DONE).exists()
    assert list(gone.parent.iterdir()) == [kept]
    assert found(store) == []


def test_only_the_newest_runs_keep_what_they_used(store):
    older, newer = make(store, "finetune-a", run="older"), make(store, "finetune-b", run="newer")
    age(store.run("older"), when=OLD)
    assert found(store, keep_runs=2) == []
    assert found(store, keep_runs=1) == [older]
    assert set(found(store, keep_runs=0)) == {older, newer}


def test_what_was_used_lately_stays_whoever_used_it(store):
    path = make(store, "finetune-a")
    (store.work("finetune-a") / garbage.DONE).touch()
    assert found(store) == []
    assert found(store, keep_days=0) == [], "a day at least: a run may be about to read it"
    assert path.exists()


def test_what_an_endpoint_serves_or_can_go_back_to_stays(store):
    serving, former, gone = (make(store, f"finetune-{name}") for name in "abc")
    write_json(store.endpoints / "demo.json", {"model_dir": str(serving)})
    adapters = {"vllm": {"adapters": [f"trade={former}"]}}
    write_json(store.endpoints / "demo" / "revisions" / "1.json", {"model_dir": "/models/base", "config": adapters})
    assert found(store) == [gone]


def test_what_is_being_made_stays_and_what_was_given_up_goes(store):
    for name in ("finetune-now", "finetune-given-up"):
        (store.work(name) / "checkpoint-5").mkdir(parents=True)
        age(store.work(name))
    with locked(store.locks / "finetune-now", lambda: None):
        assert found(store) == [store.work("finetune-given-up")]
    assert len(found(store)) == 2


def test_two_keys_that_lead_to_the_same_artifact_are_both_forgotten(store):
    path = make(store, "finetune-a")
    write_json(
        store.work("finetune-b") / garbage.DONE,
        {"artifact": {"kind": "model", "digest": "d", "path": str(path)}, "maker": {}},
    )
    assert found(store) == [], "the second was used just now"
    age(store.work("finetune-b") / garbage.DONE, store.work("finetune-b"))
    garbage.remove(store, garbage.find(store, 0, 30))
    assert not list(store.root.glob(f"work/*/{garbage.DONE}"))
