import datetime
from pathlib import Path

import pytest

from flows.store.artifacts import publish
from flows.store.bucket import client, garbage
from flows.store.files import write_json
from tests.store.bucket.test_shared import nobody


@pytest.fixture
def store(machine):
    return machine("first")


def make(store, key, run=""):
    """A finished stage with an artifact, used by a run; its name in the bucket."""
    output = store.work(key) / "output"
    output.mkdir(parents=True)
    (output / "weights").write_text(key * 100)
    with store.hold(key, nobody) as attempt:
        store.fetch_result(key, here=True)
        artifact = publish(store, "model", output, {}, attempt)
        store.share_artifact(Path(artifact.path), attempt)
        name = store.relative(Path(artifact.path))
        store.share_result(key, {"artifact": artifact.model_dump() | {"path": name}, "maker": {}}, {})
    if run:
        use(store, key, name, run)
    return name


def use(store, key, name, run):
    write_json(store.run(run) / "uses.json", {"finetune": {"key": key, "artifact": name}})
    store.share_run(run)


@pytest.fixture
def age(store, monkeypatch):
    """Makes all objects whose names hold one of the words 90 days old."""
    entries = client.Bucket.entries

    def older(self, prefix):
        found = entries(self, prefix)
        for name, entry in found.items():
            if any(word in name for word in words):
                written = entry.written - datetime.timedelta(days=90)
                found[name] = client.Entry(entry.size, entry.etag, written)
        return found

    words = []
    monkeypatch.setattr(client.Bucket, "entries", older)
    return words.extend


def found(store, keep_runs=1, keep_days=30):
    return [one.name for one in garbage.find(store, keep_runs, keep_days)]


def test_what_nobody_needs_goes_and_its_word_first(store, machine, age):
    gone, kept = make(store, "finetune-a"), make(store, "finetune-b", run="newest")
    age(["artifacts", "work"])
    assert found(store) == [gone]
    [removed] = garbage.remove(store, garbage.find(store, 1, 30))
    assert (removed.name, removed.bytes > 900) == (gone, True)
    assert not store.bucket.entries(gone)
    assert store.bucket.has(f"{kept}/manifest.json")
    assert not store.bucket.has("work/finetune-a/done.json")
    other = machine("second")
    other.fetch_result("finetune-a", here=True)
    assert not (other.work("finetune-a") / "done.json").exists()


def test_what_was_used_lately_or_by_a_kept_run_stays(store, age):
    lately = make(store, "finetune-a")
    assert found(store) == []
    age(["artifacts"])
    assert found(store) == [], "it was made lately"
    age(["work"])
    assert found(store) == [lately]
    use(store, "finetune-a", lately, "7")
    assert found(store, keep_runs=0) == [], "a run has used it lately"
    age(["runs"])
    assert found(store, keep_runs=1) == []
    assert found(store, keep_runs=0) == [lately]


def test_what_is_being_made_stays_and_what_was_given_up_goes(store, age):
    for key in ("finetune-now", "finetune-given-up"):
        store.bucket.write(f"work/{key}/checkpoints/checkpoint-5/model", b"x")
    store.bucket.write("artifacts/model/torn/model", b"xx")
    age(["checkpoints", "artifacts"])
    with store.hold("finetune-now", nobody):
        assert found(store) == ["artifacts/model/torn", "work/finetune-given-up/checkpoints"]
    assert len(found(store)) == 3


def test_a_run_at_work_on_this_machine_keeps_what_it_has_used_however_long_ago(store, age):
    name = make(store, "prepare-a", run="7")
    age(["artifacts", "work", "runs"])
    assert found(store, keep_runs=0) == [name]
    write_json(store.run("7") / "spent" / "finetune-1.json", {})
    assert found(store, keep_runs=0) == []


def test_what_comes_into_use_between_finding_and_removing_stays(store, machine, age):
    used, made, served, gone = (make(store, f"finetune-{letter}") for letter in "abcd")
    age(["artifacts", *(f"work/finetune-{letter}" for letter in "abcd")])
    listed = garbage.find(store, 0, 30)
    assert len(listed) == 4
    other = machine("second")
    use(other, "finetune-a", used, "8")
    write_json(store.endpoints / "demo.json", {"model_dir": str(store.place(served))})
    with other.hold("finetune-b", nobody):
        assert [one.name for one in garbage.remove(store, listed)] == [gone]
    for name in (used, made, served):
        assert store.bucket.has(f"{name}/manifest.json")
    assert store.bucket.has("work/finetune-a/done.json")
    assert [one.name for one in garbage.remove(store, listed)] == [made], "nobody makes it any more"


def test_what_is_used_is_asked_once_for_all_that_goes(store, age, monkeypatch):
    names = [make(store, f"finetune-{letter}") for letter in "abc"]
    age(["artifacts", "work"])
    listed = garbage.find(store, 0, 30)
    asked, entries = [], client.Bucket.entries
    monkeypatch.setattr(client.Bucket, "entries", lambda self, prefix: [asked.append(prefix), entries(self, prefix)][1])
    assert sorted(one.name for one in garbage.remove(store, listed)) == sorted(names)
    assert sorted(asked) == sorted([*(f"{name}/" for name in names), "runs/", "work/"])
    assert list(store.bucket.entries("artifacts/")) == []


def test_an_artifact_that_another_key_has_led_to_since_stays(store, age):
    name = make(store, "finetune-a")
    age(["artifacts", "work/finetune-a"])
    listed = garbage.find(store, 0, 30)
    store.bucket.write("work/finetune-b/done.json", store.bucket.read("work/finetune-a/done.json").content)
    assert garbage.remove(store, listed) == []
    assert store.bucket.has(f"{name}/manifest.json")
