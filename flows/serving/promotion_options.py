"""What a candidate must show through its live endpoint before the name moves to it, and how the name moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows.config import Config


class PromotionOptions(Config):
    """Checks of a candidate beside the current model. Whatever fails, the current one goes on serving."""

    strategy: Literal["replace", "blue-green", "canary"] = Field(
        default="replace",
        title="Strategy",
        description="How the name moves when the checks have passed. replace: at once. blue-green: all traffic at "
        "once, the former model waits beside it and takes it back if a check fails. canary: traffic by the steps "
        "below. The last two need the front.",
    )
    canary_steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        default=[10, 50],
        min_length=1,
        max_length=20,
        title="Canary steps (%)",
        description="Shares of the traffic that the candidate gets one after another, rising, before it gets all.",
    )
    step_s: float = Field(
        default=30,
        ge=0,
        le=86400,
        title="Step (s)",
        description="Seconds of each step of blue-green and canary, in which the candidate is checked under traffic.",
    )
    rows: int = Field(
        default=24,
        ge=0,
        le=10000,
        title="Questions",
        description="Held-out questions asked through the live endpoint; 0 asks none. They come from the evaluation of "
        "the run that trained the model, else of the one that trained the current model.",
    )
    questions_of_run: str = Field(
        default="",
        title="Questions of run",
        description="Id of a run of domain-adaptation whose held-out questions are asked instead, as for a model "
        "folder that no run made.",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
    )
    margin: float = Field(
        default=0.05,
        ge=0,
        le=1,
        title="Tolerated loss",
        description="The candidate is refused if it is proven worse than this in SemScore (0 to 1): than the current "
        "model on the same questions, and than the same model answered when it was evaluated.",
    )
    load_requests: int = Field(
        default=0,
        ge=0,
        le=100000,
        title="Load run (requests)",
        description="Streamed requests sent to the candidate, then to the current model; 0 means no load run.",
    )
    load_concurrency: int = Field(
        default=8, ge=1, le=1024, title="Load run (at a time)", description="Requests that are under way at a time."
    )
    load_max_tokens: int = Field(
        default=64, ge=1, le=8192, title="Load run (tokens)", description="Longest answer to each of its requests."
    )
    load_tolerance: float = Field(
        default=0.2,
        ge=0,
        le=10,
        title="Tolerated slowness",
        description="How much worse than the current model's the candidate's tokens/s and 99th percentile of the time "
        "to the first token may be, as a share (0.2: a fifth). Any failed request refuses it.",
    )
    approval: bool = Field(
        default=False,
        title="Ask a person",
        description="Pause the run after the checks, until somebody resumes it in the Prefect UI with yes or no; "
        "the form begins with no.",
    )
    approval_timeout_s: int = Field(
        default=86400,
        ge=1,
        le=2592000,
        title="Wait for the answer (s)",
        description="Seconds to wait for that person; none in time means no.",
    )


def problems(options: PromotionOptions, front: bool) -> list[str]:
    """Settings that contradict one another, a line each; `front` says whether the endpoint has a front."""
    found = []
    if options.strategy != "replace" and not front:
        found.append(
            f"serve.promotion.strategy: {options.strategy} shares the traffic between two models, which takes the "
            "front. Switch serve.front.enabled on, or choose replace."
        )
    if options.strategy == "canary" and options.canary_steps != sorted(set(options.canary_steps)):
        found.append("serve.promotion.canary_steps: each step must be larger than the one before, as 10, 50.")
    return found
