"""An OpenAI-compatible endpoint with its key: the judge, or any served model."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class OpenAIEndpoint(Block):
    """Where an LLM answers, and the key for it. Name it in `evaluation.judge` to have truthfulness judged by it.

    Example:
        ```python
        from blocks.openai_endpoint import OpenAIEndpoint

        OpenAIEndpoint.load("judge")
        ```
    """

    _block_type_name = "OpenAI Endpoint"
    _block_type_slug = "openai-endpoint"
    _description = "An OpenAI-compatible endpoint (vLLM, NIM, OpenAI, a gateway) with its model and key."
    _documentation_url = "https://platform.openai.com/docs/api-reference/chat"  # type: ignore[assignment]

    base_url: str = Field(title="Base URL", description="Up to and with /v1, for instance http://127.0.0.1:8000/v1.")
    model: str = Field(title="Model", description="The name under which the endpoint knows the model.")
    api_key: SecretStr = Field(
        default=SecretStr(""), title="API key", description="Sent as a bearer token; empty for an open endpoint."
    )
