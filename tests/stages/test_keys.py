import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.corpus.ladder import SplitConfig
from flows.corpus.prepare import PrepareConfig
from flows.corpus.sources.registry import Sources, named_files
from flows.evaluation.config import EvaluateStageConfig, EvaluationConfig, JudgeEndpoint
from flows.stages.keys import cache_key, dependencies, differences
from flows.stages.registry import PACKAGE, STAGES
from flows.training.config import FinetuneConfig


def key(stage, config, **inputs):
    return cache_key(STAGES[stage], dependencies(STAGES[stage], config, inputs))


def prepare(path, **split):
    return PrepareConfig(sources=Sources(tables=[{"path": path}]), split=SplitConfig(**split))


def test_paths_do_not_count_but_content_and_settings_do():
    assert key("prepare", prepare("/a.csv"), file_0="x") == key("prepare", prepare("/b.csv"), file_0="x")
    assert key("prepare", prepare("/a.csv"), file_0="x") != key("prepare", prepare("/a.csv"), file_0="y")
    assert key("prepare", prepare("/a.csv"), file_0="x") != key("prepare", prepare("/a.csv", unseen=0.2), file_0="x")


def test_the_same_bytes_read_in_another_way_are_another_input(tmp_path):
    names = []
    for name in ("a.csv", "a.tsv"):
        (tmp_path / name).write_text("question,answer\n")
        names.append(list(named_files(Sources(tables=[{"path": str(tmp_path / name)}]))))
    assert names == [["sources.tables[0]/0.csv"], ["sources.tables[0]/0.tsv"]]


@pytest.mark.parametrize("field", ["threads", "log_steps", "checkpoint_steps"])
def test_what_cannot_change_the_weights_does_not_count(field):
    assert key("finetune", FinetuneConfig(**{field: 7}), model="m") == key("finetune", FinetuneConfig(), model="m")


@given(st.floats(1e-6, 1e-2), st.floats(1e-6, 1e-2))
def test_two_learning_rates_are_two_keys(one, other):
    same = key("finetune", FinetuneConfig(learning_rate=one)) == key("finetune", FinetuneConfig(learning_rate=other))
    assert same == (one == other)


def test_another_judge_touches_evaluation_only():
    def with_judge(model):
        judge = JudgeEndpoint(base_url="http://j/v1", model=model, api_key_env="KEY")
        return EvaluateStageConfig(evaluation=EvaluationConfig(), judge=judge)

    assert key("evaluate", with_judge("a"), trained="t") != key("evaluate", with_judge("b"), trained="t")
    depends = dependencies(STAGES["evaluate"], with_judge("a"), {})
    assert "KEY" not in str(depends)


def test_what_changed_is_said_in_words():
    before = dependencies(STAGES["finetune"], FinetuneConfig(), {"dataset": "a", "model": "m"})
    after = dependencies(STAGES["finetune"], FinetuneConfig(learning_rate=1e-4), {"dataset": "b", "model": "m"})
    assert differences(before, after) == ["learning_rate 0.0002 -> 0.0001", "another dataset"]
    assert differences(after, after) == []
    assert differences({**after, "code": {**after["code"], "training": "x"}}, after) == ["code of training changed"]
    assert differences({**after, "libraries": {**after["libraries"], "trl": "0.1"}}, after) == [
        f"trl 0.1 -> {after['libraries']['trl']}"
    ]


def files(**digests):
    """A stage that read these files, in this order."""
    named = {f"sources.exams[0]/{number}.json": digest for number, digest in enumerate(digests.values())}
    labels = dict(zip(named, (f"exam/{name}.json" for name in digests), strict=True))
    return {"config": {}, "inputs": named, "labels": labels, "code": {}, "libraries": {}}


def test_files_are_named_as_people_know_them():
    before = files(a="1", b="2", c="3")
    assert differences(before, files(a="1", b="9", c="3")) == ["file exam/b.json changed"]
    assert differences(before, files(a="1", aa="4", b="2", c="3")) == ["file exam/aa.json is new"]
    assert differences(before, files(a="1", c="3")) == ["file exam/b.json is gone"]
    many = {f"f{number}": str(number) for number in range(9)}
    assert differences(files(), files(**many))[-2:] == ["file exam/f4.json is new", "4 more files changed"]


def test_every_stage_names_code_and_a_function_that_are_there():
    for stage in STAGES.values():
        assert callable(pkgutil.resolve_name(stage.function))
        assert all((PACKAGE / part).exists() for part in stage.code)
