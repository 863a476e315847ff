"""The stages, by name. To add one: write `run(config, inputs, workdir, progress)` in a work package and a line here."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from pydantic import BaseModel

import flows
from flows.training.config import STOP_FILE

PACKAGE = Path(flows.__file__).parent


class Stage(BaseModel):
    """A work function, the model of its settings, and what its result depends on besides inputs and settings.

    `code` are files or folders below `flows/`; `libraries` are distributions whose version counts; `unimportant` names
    config fields that cannot change the result. `heavy` stages run in a child process, those of a `team` in several
    at once if that is asked for. `secrets` is a function (`module:name`) from the config to variables of that process
    which are read where it runs, and kept nowhere. A `stop_file`, in the working folder, asks the work to stop where it
    can go on later; work without one is ended.
    """

    name: str
    function: str
    config: str
    artifact: str
    code: list[str]
    libraries: list[str] = []
    unimportant: list[str] = []
    heavy: bool = True
    team: bool = False
    secrets: str = ""
    stop_file: str = ""

    @property
    def config_type(self) -> type[BaseModel]:
        """The model of the work function's settings."""
        found: type[BaseModel] = pkgutil.resolve_name(self.config)
        return found

    def secrets_of(self, config: BaseModel) -> dict[str, str]:
        """Variables with secrets that the stage's process needs.

        Raises:
            ConfigError: a block is missing.
        """
        variables: dict[str, str] = pkgutil.resolve_name(self.secrets)(config) if self.secrets else {}
        return variables


TRAINING_LIBRARIES = ["torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "tokenizers"]
TRAINING_UNIMPORTANT = ["enabled", "threads", "log_steps", "checkpoint_steps", "report_to"]

EVALUATION_CODE = [
    "bootstrap.py",
    "config.py",
    "embedders.py",
    "evaluate.py",
    "generate.py",
    "judge.py",
    "judge_prompts",
    "results.py",
    "semscore.py",
    "truthfulness.py",
]

STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            name="prepare",
            function="flows.corpus.prepare:run",
            config="flows.corpus.prepare:PrepareConfig",
            artifact="dataset",
            code=["corpus", "placeholders.py"],
            libraries=["datasketch"],
            unimportant=["path", "folder"],
            heavy=False,
        ),
        Stage(
            name="pretrain",
            function="flows.training.pretrain:run",
            config="flows.training.config:PretrainConfig",
            artifact="model",
            code=["training", "corpus/row.py"],
            libraries=TRAINING_LIBRARIES,
            unimportant=TRAINING_UNIMPORTANT,
            team=True,
            stop_file=STOP_FILE,
        ),
        Stage(
            name="finetune",
            function="flows.training.finetune:run",
            config="flows.training.config:FinetuneConfig",
            artifact="model",
            code=["training", "corpus/row.py"],
            libraries=TRAINING_LIBRARIES,
            unimportant=TRAINING_UNIMPORTANT,
            team=True,
            stop_file=STOP_FILE,
        ),
        Stage(
            name="evaluate",
            function="flows.evaluation.evaluate:run",
            config="flows.evaluation.config:EvaluateStageConfig",
            artifact="evaluation",
            # All of the package but the gate, which is asked after it.
            code=[
                *(f"evaluation/{name}" for name in EVALUATION_CODE),
                *(f"endpoint_client/{name}" for name in ("batch.py", "kept.py", "request.py", "retry.py", "target.py")),
                "corpus/row.py",
                "placeholders.py",
                "training/chat.py",
                "training/loading.py",
            ],
            libraries=["torch", "transformers", "tokenizers", "sentence-transformers", "numpy", "scipy"],
            unimportant=["threads", "api_key_env"],
            secrets="flows.stages.judge:secrets",
        ),
        Stage(
            name="shell",
            function="flows.shell.command:run",
            config="flows.shell.command:ShellConfig",
            artifact="files",
            code=["shell"],
            unimportant=["data_folder", "timeout_s", "secrets"],
        ),
    )
}
