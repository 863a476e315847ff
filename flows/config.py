"""The base of every parameter model: unknown keys are refused, values cannot change after validation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A typed group of parameters, drawn by the Prefect UI as one box of the run form."""

    model_config = ConfigDict(extra="forbid", frozen=True)
