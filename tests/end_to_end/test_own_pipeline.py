"""The shipped pipeline of one's own on a real server: commands, a duplicate, branches and a join."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]


def test_commands_branches_and_a_join_run_in_their_order_and_are_cached(prefect):
    names = {"fetch", "prepare", "once", "twice", "compare", "look"}
    dry, state = prefect.run("pipeline/example", dry_run=True)
    would = state["message"].removeprefix("Would run: ").partition(". ")[0].split(", ")
    assert set(would) - {"base-model"} == names, state["message"]
    told = prefect.artifacts(dry)
    assert "stages" not in told, "nothing ran"
    assert "fetch | would run" in told["explanation"]["data"]
    first, state = prefect.run("pipeline/example")
    assert state["type"] == "COMPLETED", state["message"]
    assert state["message"].startswith("compare: ")
    report = json.loads((prefect.folder(first) / "report.json").read_text("utf-8"))
    status = {stage["name"]: stage["status"] for stage in report["stages"]}
    assert {name: status[name] for name in names} == dict.fromkeys(names, "ran")
    assert (report["title"], report["base_model"], report["data"]["rows"] > 0) == ("Once or twice", "once", True)
    assert report["description"] == "What a second epoch of the same rows is worth."
    assert report["description"] in (prefect.folder(first) / "report.html").read_text("utf-8")
    made = json.loads((prefect.folder(first) / "manifest.json").read_text("utf-8"))["artifacts"]
    rows = Path(made["fetch"]["path"], "terms.csv").read_text("utf-8").splitlines()
    assert rows[-1] == "What is the number 40 called?,It is called number 40 of the example."
    assert "evaluation.json" in Path(made["look"]["path"], "files.txt").read_text("utf-8")
    assert {"stages", "report"} <= set(prefect.artifacts(first))

    second, state = prefect.run("pipeline/example")
    log = prefect.log(second)
    assert "compare is cached: same inputs, settings and code as in " in log
    assert "Traceback" not in log + prefect.log(first), "of a task that cannot be cached, say"
    report = json.loads((prefect.folder(second) / "report.json").read_text("utf-8"))
    assert {stage["status"] for stage in report["stages"] if stage["name"] in names} == {"cached"}


def test_what_is_wrong_is_told_before_anything_runs_and_a_failed_command_with_its_words(prefect):
    circle = [{"name": n, "kind": "shell", "command": "true", "after": [o]} for n, o in (("a", "b"), ("b", "a"))]
    _, state = prefect.run("pipeline/example", stages=circle)
    assert (state["type"], "in a circle" in state["message"]) == ("FAILED", True)
    stages = [
        {"name": "a", "kind": "shell", "command": "echo $WORD; exit 7"},
        {"name": "b", "like": "a", "after": ["a"]},
    ]
    _, state = prefect.run("pipeline/example", stages=stages, run={"env": ["WORD=so it goes"]})
    assert "a: The command failed with exit code 7. Its last lines:\nso it goes" in state["message"]
    stages = [{"name": "a", "kind": "shell", "command": "true", "files": ["mem"]}]
    _, state = prefect.run("pipeline/example", stages=stages, sources={"folder": "/proc/self"})
    assert (state["type"], "Input/output error" in state["message"]) == ("FAILED", True), state
