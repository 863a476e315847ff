"""From the name of an OpenAI Endpoint block to what the evaluate stage's child process needs."""

from __future__ import annotations

from flows.evaluation.config import EvaluateStageConfig, JudgeEndpoint
from flows.stages.endpoint_target import load_block

KEY_VARIABLE = "FINETUNE_JUDGE_API_KEY"


def secrets(config: EvaluateStageConfig) -> dict[str, str]:
    """The judge's key, for the stage's child process.

    Raises:
        ConfigError: there is no such block.
    """
    return judge_endpoint(config.evaluation.judge)[1]


def judge_endpoint(block_name: str) -> tuple[JudgeEndpoint | None, dict[str, str]]:
    """The endpoint and the environment with its key; (None, {}) for an empty name.

    Raises:
        ConfigError: there is no such block.
    """
    if not block_name:
        return None, {}
    block = load_block(block_name, "evaluation.judge", ", or leave the field empty for the stand-in")
    endpoint = JudgeEndpoint(base_url=block.base_url, model=block.model, api_key_env=KEY_VARIABLE)
    return endpoint, {KEY_VARIABLE: block.api_key.get_secret_value()}
