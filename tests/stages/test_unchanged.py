import json
import logging
from functools import partial

import pytest

from flows.base_models.resolve import BaseModelConfig
from flows.corpus.ladder import SplitConfig
from flows.corpus.sources.registry import Sources
from flows.errors import ConfigError
from flows.evaluation.config import GatePolicy
from flows.pipeline import walk_to_the_end
from flows.reporting.write import write_report
from flows.stages import unchanged as ends
from flows.stages.graph import OwnStage, nodes
from flows.stages.make import artifact_of, make
from flows.stages.pipeline import Pipeline
from flows.stages.preflight import run_problems
from flows.stages.run_context import RunContext, RunOptions
from flows.stages.stage_task import Outcome
from flows.store.files import read_json
from flows.store.garbage import USES
from flows.store.layout import Store
from tests.reporting.conftest import make_report

LOG = logging.getLogger("unchanged")


class Run(RunContext):
    """A run without Prefect."""

    @property
    def logger(self):
        return LOG

    def progress(self, stage):
        return lambda *_, **__: None


def really_make(run, call):
    result = make(run, call, False, waiting=lambda why: None)
    return Outcome(stage=call.name, status="ran", seconds=0, why="", **result | {"artifact": artifact_of(run, result)})


class Nightly:
    """Runs of one deployment, night after night."""

    def __init__(self, root, monkeypatch):
        self.store = Store(str(root))
        self.pages = []
        monkeypatch.setattr(ends, "create_markdown_artifact", lambda page, **more: self.pages.append(page))

    def run(self, number, line="nightly"):
        options = RunOptions(only_if_changed=True, store=str(self.store.root))
        return Run(self.store, options, f"run-{number}", f"night-{number}", line, flow_name="pipeline")

    def walk(self, commands):
        stages = [OwnStage(name=name, kind="shell", command=command) for name, command in commands.items()]
        graph = nodes(stages, Sources(), SplitConfig())
        return partial(walk_to_the_end, graph=graph, model=BaseModelConfig(name="tiny:llama-3"), data_folder="")

    def really(self, number, commands, asked, report=None):
        run = self.run(number)
        self.walk(commands)(Pipeline(run, runner=really_make))
        if report:
            write_report(report, self.store.run(run.run_id))
        ends.ended_well(run, asked, report)

    def look(self, number, commands, asked, **more):
        return ends.unchanged(self.run(number, **more), asked, self.walk(commands))


@pytest.fixture
def nightly(tmp_path, monkeypatch):
    return Nightly(tmp_path, monkeypatch)


def test_a_run_that_has_nothing_to_do_ends_and_says_since_when(nightly, caplog):
    caplog.set_level("INFO")
    asked, same = {"gate": GatePolicy()}, {"a": "echo 1 > a.txt"}
    assert nightly.look(1, same, asked) is None
    assert "no run of this deployment has ended well" in caplog.text
    nightly.really(1, same, asked, make_report())
    end = nightly.look(2, same, asked)
    assert (end.type.value, end.name) == ("COMPLETED", "Skipped")
    assert end.message.startswith("Nothing has changed since night-1 (")
    assert "The gate passed: reworded SemScore 0.45" in end.message
    assert "Nothing has changed since night-1" in nightly.pages[0]
    used = read_json(nightly.store.run("run-2") / USES)
    assert list(used) == ["a"], "what it would have made again is kept as long as what it made"
    assert nightly.look(3, same, asked).message.startswith("Nothing has changed since night-1 (")


@pytest.mark.parametrize(
    ("commands", "asked", "why"),
    [
        ({"a": "echo 2 > a.txt"}, {"gate": GatePolicy()}, "a: command"),
        ({"a": "echo 1 > a.txt"}, {"gate": GatePolicy(margin=0.5)}, "gate changed since night-1"),
        ({"a": "echo 1 > a.txt", "b": "true"}, {"gate": GatePolicy()}, "b: "),
    ],
)
def test_what_has_changed_is_said_and_the_run_goes_on(nightly, caplog, commands, asked, why):
    caplog.set_level("INFO")
    nightly.really(1, {"a": "echo 1 > a.txt"}, {"gate": GatePolicy()})
    assert nightly.look(2, commands, asked) is None
    assert why in caplog.text


def test_a_report_that_is_gone_is_made_again(nightly, caplog):
    caplog.set_level("INFO")
    nightly.really(1, {"a": "true"}, {}, make_report())
    (nightly.store.run("run-1") / "report.json").unlink()
    assert nightly.look(2, {"a": "true"}, {}) is None
    assert "the report of night-1 is gone" in caplog.text


def test_another_deployment_is_another_line(nightly):
    nightly.really(1, {"a": "true"}, {})
    assert nightly.look(2, {"a": "true"}, {}, line="weekly") is None
    assert nightly.look(2, {"a": "true"}, {}) is not None


def test_a_stage_that_fails_is_left_to_the_run_itself(nightly):
    nightly.really(1, {"a": "true"}, {})

    def walk(line):
        raise ConfigError("prepare: no file")

    assert ends.unchanged(nightly.run(2), {}, walk) is None


def test_it_takes_an_evaluation():
    [wrong] = run_problems(RunOptions(only_if_changed=True, skip=["evaluate"]))
    assert wrong.startswith("run.only_if_changed: ")


def test_what_was_asked_is_kept_as_json(nightly):
    nightly.really(1, {"a": "true"}, {"gate": GatePolicy(), "stages": [OwnStage(name="a", kind="shell", command="b")]})
    [record] = (nightly.store.root / "lines").iterdir()
    assert json.loads(record.read_text("utf-8"))["asked"]["stages"][0]["name"] == "a"
