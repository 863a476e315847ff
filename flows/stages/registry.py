"""The stages, by name. To add one: write `run(config, inputs, workdir, progress)` in a work package and a line here."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

import flows

PACKAGE = Path(flows.__file__).parent


class Stage(BaseModel):
    """A work function and what its result depends on besides inputs and config.

    `code` are files or folders below `flows/`; `libraries` are distributions whose version counts; `unimportant` names
    config fields that cannot change the result. `heavy` stages run in a child process.
    """

    name: str
    function: str
    artifact: str
    code: list[str]
    libraries: list[str] = []
    unimportant: list[str] = []
    heavy: bool = True


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
            artifact="dataset",
            code=["corpus", "placeholders.py"],
            libraries=["datasketch"],
            unimportant=["path"],
            heavy=False,
        ),
        Stage(
            name="pretrain",
            function="flows.training.pretrain:run",
            artifact="model",
            code=["training", "corpus/row.py"],
            libraries=TRAINING_LIBRARIES,
            unimportant=TRAINING_UNIMPORTANT,
        ),
        Stage(
            name="finetune",
            function="flows.training.finetune:run",
            artifact="model",
            code=["training", "corpus/row.py"],
            libraries=TRAINING_LIBRARIES,
            unimportant=TRAINING_UNIMPORTANT,
        ),
        Stage(
            name="evaluate",
            function="flows.evaluation.evaluate:run",
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
        ),
    )
}
