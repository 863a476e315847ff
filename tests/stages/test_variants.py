import pytest

from flows.errors import ConfigError
from flows.stages.variants import TrainingVariant, trainings
from flows.training.config import FinetuneConfig, PretrainConfig


def of(*overrides, name="one"):
    return trainings(PretrainConfig(), FinetuneConfig(), [TrainingVariant(name=name, overrides=overrides)])


def test_without_variants_there_is_the_runs_own_training():
    (only,) = trainings(PretrainConfig(), FinetuneConfig(), [])
    assert (only.name, only.finetune, only.stage("finetune")) == ("", FinetuneConfig(), "finetune")


def test_an_override_changes_that_setting_and_no_other():
    (one,) = of("finetune.learning_rate=0.0001", "finetune.lora.r=64", "pretrain.enabled=false")
    assert one.stage("finetune") == "finetune-one"
    assert not one.pretrain.enabled
    expected = FinetuneConfig(learning_rate=1e-4)
    assert one.finetune == expected.model_copy(update={"lora": expected.lora.model_copy(update={"r": 64})})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "finetune.learning_ratee=1",
            "'finetune.learning_ratee=1' names no setting of pretrain or finetune. Did you mean ",
        ),
        ("finetune.learning_rate", "names no setting of pretrain or finetune."),
        ("learning_rate=1", "names no setting of pretrain or finetune."),
        ("finetune.learning_rate.x=1", "names no setting of pretrain or finetune."),
        (
            "finetune.learning_rate=fast",
            "overrides: finetune.learning_rate: Input should be a valid number",
        ),
        ("finetune.learning_rate=-1", "variants[0].overrides: finetune.learning_rate: Input should be greater than"),
        ("finetune.lora.target_modules=[a", "the value cannot be read."),
        ("finetune.lora.target_modules=!!python/object:os.system x", "the value cannot be read."),
    ],
)
def test_what_is_no_override_is_named(line, words):
    with pytest.raises(ConfigError) as error:
        of(line)
    assert words in str(error.value)


def test_the_same_name_twice_is_refused_and_all_problems_are_told_at_once():
    two = [TrainingVariant(name="one"), TrainingVariant(name="one", overrides=["x=1", "y=2"])]
    with pytest.raises(ConfigError) as error:
        trainings(PretrainConfig(), FinetuneConfig(), two)
    assert len(error.value.problems) == 3
    assert error.value.problems[0] == "variants[1].name: one stands there twice."
