import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.store import garbage
from flows.store.artifacts import Artifact, damage, note_use, publish
from flows.store.files import read_json, write_json
from flows.store.layout import MANIFEST, Store
from flows.store.locks import locked, unless_held

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
    [removed] = garbage.remove(store, garbage.find(store, 1, 30))
    assert (removed.path, removed.bytes > 900) == (gone, True)
    assert (gone.exists(), kept.exists()) == (False, True)
    assert not (store.work("finetune-a") / garbage.DONE).exists()
    assert list(gone.parent.iterdir()) == [kept]
    assert found(store) == []


@pytest.mark.parametrize("torn", ["[]", "{}", '{"artifact": 1}', '{"artifact": {"path": 1}}', "{", "3"])
def test_words_of_another_shape_keep_nothing_and_stop_nobody(store, torn):
    gone, kept = make(store, "finetune-a"), make(store, "finetune-b", run="newest")
    (store.work("finetune-a") / garbage.DONE).write_text(torn)
    store.run("older").mkdir(parents=True)
    (store.run("older") / garbage.USES).write_text(torn)
    age(store.work("finetune-a") / garbage.DONE)
    assert found(store, keep_runs=5) == [gone]
    assert kept.exists()


def test_two_that_collect_at_once_remove_it_once(store):
    for name in "abc":
        make(store, f"finetune-{name}")
    (store.artifacts / "model" / "folder").mkdir()
    age(store.artifacts / "model" / "folder")
    listed = garbage.find(store, 1, 30)
    other = garbage.find(store, 1, 30)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda garbage_found: garbage.remove(store, garbage_found), [listed, other]))
    assert sorted(one.path for found_by in both for one in found_by) == sorted(one.path for one in listed)
    assert list((store.artifacts / "model").iterdir()) == []


def test_what_vanishes_while_it_is_measured_has_no_bytes(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("12345")
    (tmp_path / "gone").mkdir()
    real = garbage.os.scandir

    def vanishing(path):
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(garbage.os, "scandir", vanishing)
    assert garbage._bytes(tmp_path) == 5
    assert garbage._bytes(tmp_path / "gone") == 0


def test_only_the_newest_runs_keep_what_they_used(store):
    older, newer = make(store, "finetune-a", run="older"), make(store, "finetune-b", run="newer")
    age(store.run("older") / garbage.USES, when=OLD)
    assert found(store, keep_runs=2) == []
    assert found(store, keep_runs=1) == [older]
    assert set(found(store, keep_runs=0)) == {older, newer}


def test_runs_that_used_nothing_are_not_counted(store):
    """Left by explain, dry runs and refused runs: folders that are newer than every run that trained."""
    older, newer = make(store, "finetune-a", run="older"), make(store, "finetune-b", run="newer")
    age(store.run("older") / garbage.USES, store.run("older"), store.run("newer"), when=OLD)
    for name in ("explained", "refused"):
        write_json(store.run(name) / "progress.json", {})
    write_json(store.run("older") / "report.json", {})  # a mail sent again, say: it used nothing then
    assert found(store, keep_runs=1) == [older]
    assert found(store, keep_runs=2) == []
    assert newer.exists()


def test_a_run_at_work_keeps_what_it_has_used_however_long_ago(store):
    path = make(store, "prepare-a", run="long")
    age(store.run("long") / garbage.USES)
    write_json(store.run("long") / garbage.SPENT / "finetune-1.json", {})
    assert found(store, keep_runs=0) == []
    age(store.run("long") / garbage.SPENT)
    assert found(store, keep_runs=0) == [path]


def published_again(store, path):
    output = store.work("finetune-other") / "output"
    output.mkdir(parents=True)
    (output / "weights").write_text("finetune-a" * 100)
    publish(store, "model", output, {})


def used_by_a_run(store, path):
    note_use(store, path)


def served(store, path):
    write_json(store.endpoints / "demo.json", {"model_dir": str(path)})


def taken_from_the_cache(store, path):
    (store.work("finetune-a") / garbage.DONE).touch()


@pytest.mark.parametrize("use", [published_again, used_by_a_run, served, taken_from_the_cache])
def test_what_comes_into_use_between_finding_and_removing_stays(store, use):
    path, gone = make(store, "finetune-a"), make(store, "finetune-b")
    listed = garbage.find(store, 0, 30)
    use(store, path)
    assert [one.path for one in garbage.remove(store, listed)] == [gone]
    assert (path / "weights").exists()
    assert (store.work("finetune-a") / garbage.DONE).exists()


def test_what_somebody_has_begun_to_make_anew_stays(store):
    path = make(store, "finetune-a")
    (store.work("finetune-b") / "checkpoint-5").mkdir(parents=True)
    age(store.work("finetune-b"))
    listed = garbage.find(store, 0, 30)
    assert len(listed) == 2
    with locked(store.locks / "finetune-a", lambda: None), locked(store.locks / "finetune-b", lambda: None):
        assert garbage.remove(store, listed) == []
    assert path.exists()
    assert len(garbage.remove(store, listed)) == 2
    assert garbage.remove(store, listed) == [], "twice is no error"


def test_who_uses_an_artifact_waits_while_it_is_being_removed(store):
    path = make(store, "finetune-a")
    manifest = read_json(path / MANIFEST)
    artifact = Artifact(kind="model", digest=manifest["digest"], path=str(path))
    [one] = garbage.find(store, 0, 30)
    with ThreadPoolExecutor(1) as thread, garbage._still_garbage(store, one, ["finetune-a"]) as still:
        assert still
        using = thread.submit(note_use, store, path)
        with pytest.raises(TimeoutError):
            using.result(0.2)
        path.rename(path.with_name(".removed"))
        with unless_held(store.locks / "finetune-a") as free:
            assert not free
    assert using.result(5) is None
    assert damage(store, artifact) == "it has no manifest"


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
