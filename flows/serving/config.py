"""What a person chooses when a model is served."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.config import Config


class ServeConfig(Config):
    """How the trained model is served on this machine."""

    enabled: bool = Field(default=True, title="Serve", description="Serve the model if the gate passes.")
    name: str = Field(
        default="domain-model",
        title="Endpoint name",
        description="What the endpoint is called: lower-case letters, digits and dashes, 1 to 63 characters. "
        "A name that already serves another model is moved to the new one once that is healthy.",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    )
    variant: Literal["transformers"] = Field(
        default="transformers",
        title="Variant",
        description="Which model server runs: transformers is `transformers serve`, on CPU or GPU.",
    )
    port: int = Field(
        default=0,
        title="Port",
        description="TCP port on 127.0.0.1; 0 means a free one. A model that replaces another one of the same name "
        "is first started beside it, so it gets a free port when the old one holds this one.",
        ge=0,
        le=65535,
    )
    threads: int = Field(
        default=1,
        title="Threads",
        description="CPU threads of the server (OpenMP, torch). On cores shared with other work more threads are "
        "several times slower.",
        ge=1,
        le=1024,
    )
    startup_budget_s: float = Field(
        default=600,
        title="Startup budget (s)",
        description="Seconds from start until the model has answered a question; longer counts as failed.",
        gt=0,
        le=86400,
    )
