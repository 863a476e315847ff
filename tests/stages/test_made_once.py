"""A kill around the moment at which work is noted as done: it is not done again, and nothing of it stays."""

import logging

import pytest
from pydantic import BaseModel

from flows.stages import make as maker
from flows.stages import run_context
from flows.stages.call import StageCall
from flows.stages.make import make
from flows.stages.registry import STAGES, Stage
from flows.stages.run_context import RunContext, RunOptions
from flows.store.layout import Store


class Nothing(BaseModel):
    pass


CALL = StageCall("own", Nothing(), {}, {})
times = []


def work(config, inputs, workdir, progress):
    times.append(1)
    for folder in ("output", "checkpoints"):
        (workdir / folder).mkdir(exist_ok=True)
        (workdir / folder / "model").write_text("weights")
    return {}


@pytest.fixture(autouse=True)
def stage(monkeypatch):
    own = Stage(name="own", function=f"{__name__}:work", config="", artifact="model", code=[], heavy=False)
    monkeypatch.setitem(STAGES, "own", own)
    monkeypatch.setattr(run_context, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(run_context, "ProgressArtifact", lambda stage: lambda *report, **figures: None)
    times.clear()


def made(tmp_path, run="first", refresh=False):
    context = RunContext(Store(str(tmp_path)), RunOptions(), run, f"run-{run}", "local")
    return make(context, CALL, refresh, lambda why: None)


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "work" / CALL.key).iterdir())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before it is noted", "after"])
@pytest.mark.parametrize("refresh", [False, True])
def test_killed_when_the_work_is_done_it_is_not_done_again(tmp_path, monkeypatch, moment, refresh):
    def dies(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(maker, "_clear" if moment == "after" else "remember", dies)
        with pytest.raises(Killed):
            made(tmp_path, refresh=refresh)
    assert "checkpoints" in left(tmp_path), "from which a training goes on in its last step"
    made(tmp_path, refresh=refresh)
    assert len(times) == (1 if moment == "after" else 2)
    assert left(tmp_path) == ["depends.json", "done.json"]


def test_another_run_that_asks_for_it_anew_does_it_anew(tmp_path):
    made(tmp_path)
    assert made(tmp_path, "second", refresh=True)["maker"]["run_id"] == "second"
    assert len(times) == 2
