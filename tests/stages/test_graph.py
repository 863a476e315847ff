import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.corpus.ladder import SplitConfig
from flows.corpus.sources.registry import Sources
from flows.errors import ConfigError
from flows.stages.graph import OwnStage, nodes
from flows.stages.resources import StageResources
from flows.training.config import FinetuneConfig

SPLIT = SplitConfig()


def of(*stages):
    return {node.name: node for node in nodes([OwnStage(**stage) for stage in stages], Sources(), SPLIT)}


def problems(*stages):
    with pytest.raises(ConfigError) as error:
        of(*stages)
    return error.value.problems


PREPARE = {"name": "prepare", "kind": "prepare"}
OUTSIDE = "stages[0].files: {} is outside of the data folder. Write the name in it, and name the folder in "
TUNE = {"name": "tune", "kind": "finetune", "after": ["prepare"]}


def test_what_a_stage_works_on_follows_from_what_it_comes_after():
    found = of(
        {"name": "score", "kind": "evaluate", "after": ["tune"]},
        TUNE | {"after": ["study"]},
        {"name": "study", "kind": "pretrain", "after": ["list"]},
        {"name": "list", "kind": "shell", "command": "ls", "after": ["prepare"]},
        PREPARE,
    )
    assert list(found) == ["prepare", "list", "study", "tune", "score"]
    assert (found["study"].dataset, found["study"].model) == ("prepare", "")
    assert (found["tune"].dataset, found["tune"].model) == ("prepare", "study")
    assert (found["score"].dataset, found["score"].model, found["score"].against) == ("prepare", "tune", "")


def test_a_duplicate_takes_all_that_it_does_not_say_itself():
    first = TUNE | {"settings": ["learning_rate=0.001", "epochs=2"], "resources": {"gpus": 1}}
    found = of(PREPARE, first, {"name": "again", "like": "tune", "settings": ["learning_rate=0.0001"]})
    again = found["again"]
    assert (again.kind, again.dataset, again.stage.after) == ("finetune", "prepare", ["prepare"])
    assert again.config == FinetuneConfig(learning_rate=0.0001, epochs=2)
    assert again.stage.resources == StageResources(gpus=1)
    assert found["tune"].config == FinetuneConfig(learning_rate=0.001, epochs=2)


def test_two_models_are_compared_after_a_join():
    other = TUNE | {"name": "other"}
    join = {"name": "score", "kind": "evaluate", "after": ["tune", "other"]}
    assert problems(PREPARE, TUNE, other, join) == [
        "stages[3].model: score comes after several (other, tune); say whose model is meant."
    ]
    found = of(PREPARE, TUNE, other, join | {"model": "tune", "against": "other"})
    assert (found["score"].model, found["score"].against) == ("tune", "other")


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "stages: there is none."),
        ([PREPARE, PREPARE], "stages: prepare stands there twice."),
        ([{"name": "a"}], "stages[0].kind: say what a does, or of which stage it is a duplicate (like)."),
        ([PREPARE, TUNE | {"after": ["prepar"]}], "stages[1].after: there is no stage prepar."),
        ([PREPARE, TUNE | {"model": "x"}], "stages[1].model: there is no stage x."),
        ([TUNE | {"after": []}], "stages[0].after: tune needs a prepare stage before it."),
        (
            [PREPARE, {"name": "e", "kind": "evaluate", "after": ["prepare"]}],
            "stages[1].after: e needs a training before it.",
        ),
        (
            [
                {"name": "a", "kind": "shell", "command": "x", "after": ["b"]},
                {"name": "b", "kind": "shell", "command": "x", "after": ["a"]},
            ],
            "stages: they wait for each other in a circle: ",
        ),
        ([{"name": "a", "like": "b"}, {"name": "b", "like": "a"}], "stages[0].like: a is a duplicate of itself."),
        ([{"name": "a", "like": "a"}], "stages[0].like: a is a duplicate of itself."),
        (
            [PREPARE, {"name": "b", "like": "prepare", "kind": "shell"}],
            "stages[1].kind: b is a duplicate of prepare, which does prepare.",
        ),
        ([{"name": "a", "kind": "shell"}], "stages[0].command: a shell stage needs one."),
        ([PREPARE | {"command": "ls"}], "stages[0].command: only a shell stage has one."),
        ([{"name": "a", "kind": "shell", "command": "ls", "settings": ["b=1"]}], "stages[0].settings: a shell stage"),
        (
            [PREPARE, TUNE | {"settings": ["learning_ratee=1"]}],
            "stages[1].settings[0]: 'learning_ratee=1' names no setting of a finetune stage. Did you mean learning",
        ),
        ([PREPARE, TUNE | {"settings": ["epochs=-1"]}], "stages[1].settings: epochs: Input should be greater than"),
        (
            [PREPARE, {"name": "c", "kind": "shell", "command": "ls"}, TUNE | {"dataset": "c"}],
            "stages[2].dataset: c is not a prepare stage before tune. Add it to after.",
        ),
        ([{"name": "c", "kind": "shell", "command": "ls", "files": ["a", "/etc/pass*"]}], OUTSIDE.format("/etc/pass*")),
        ([{"name": "c", "kind": "shell", "command": "ls", "files": ["../a"]}], OUTSIDE.format("../a")),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(stages, words):
    assert problems(*stages)[0].startswith(words)


def test_all_problems_are_told_at_once():
    assert len(problems({"name": "a"}, {"name": "b", "after": ["x"], "kind": "shell"})) == 2


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6))
def test_every_graph_is_put_in_order_or_refused(edges):
    names = [f"s{number}" for number in range(len(edges))]
    stages = [
        OwnStage(name=name, kind="shell", command="ls", after=[f"s{one}" for one in after])
        for name, after in zip(names, edges, strict=True)
    ]
    try:
        order = nodes(stages, Sources(), SPLIT)
    except ConfigError:
        return
    done = set()
    for node in order:
        assert set(node.stage.after) <= done
        assert node.before <= done
        done.add(node.name)
    assert done == set(names)
