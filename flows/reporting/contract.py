"""The shape of `report.json`: what every run of the pipeline promises to say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.cost.cost import Cost
from flows.evaluation.results import Estimate, Example, Generation, Metrics

StageStatus = Literal["ran", "cached", "skipped", "failed"]


class Part(BaseModel):
    """Base of the parts of a report."""

    model_config = ConfigDict(extra="forbid")


class StageReport(Part):
    """One stage of the run: what happened, how long it took, why, and for a cached one which run made the result.

    `cost` is what this run itself has spent on it, failed attempts too; `saved` what the result had cost that was
    there already.
    """

    name: str
    status: StageStatus
    seconds: float
    why: str = ""
    from_run: str | None = None
    from_run_url: str | None = None
    cost: Cost | None = None
    saved: Cost | None = None


class DataReport(Part):
    """The data card in numbers. `rows` are usable rows of all splits; `documents` are DAPT texts.

    `reworded_test` are the reworded rows of the test share, on which the gate decides; None in older reports.
    """

    rows: int
    by_source: dict[str, int]
    by_rung: dict[str, int]
    by_split: dict[str, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    leaks_removed: int = 0
    documents: int = 0
    protocol: str = "ladder"
    leaking_test_rows: int = 0
    not_reworded: int = 0
    reworded_test: int | None = None
    reworded_by: dict[str, int] = Field(default_factory=dict)
    dropped_examples: list[dict[str, Any]] = Field(default_factory=list)


class TrainingReport(Part):
    """One training stage. `loss` holds [step, loss] pairs."""

    stage: str
    method: str
    seconds: float
    steps: int
    tokens: int
    supervised_tokens: int
    tokens_per_second: float
    examples: int = 0
    too_long: int = 0
    loss: list[tuple[int, float]] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)


class VariantReport(Part):
    """One of several trainings, on the reworded rows of the dev share; without figures it failed, `why` says how."""

    name: str
    overrides: list[str]
    n: int = 0
    trained: Estimate | None = None
    delta: Estimate | None = None
    seconds: float | None = None
    chosen: bool = False
    model: str = ""
    why: str = ""


class GateReport(Part):
    """The verdict, with its reasons in words; `failed` are those of them that kept it from passing."""

    passed: bool
    reasons: list[str]
    failed: list[str] = []

    @property
    def decisive(self) -> list[str]:
        """The reasons for just this verdict. Older reports do not tell them apart."""
        return self.failed or self.reasons


class CheckReport(Part):
    """One check of a candidate through its live endpoint, before the endpoint's name moves to it.

    `skipped`: it could not be made, `words` say why; it has not passed, and refuses nothing.
    """

    name: str
    passed: bool
    words: str
    seconds: float
    skipped: bool = False

    @property
    def verdict(self) -> Literal["passed", "failed", "skipped"]:
        """Passed, failed or skipped."""
        return "skipped" if self.skipped else "passed" if self.passed else "failed"


class EndpointReport(Part):
    """Where the model is served, if it is."""

    name: str
    url: str
    state: str
    model: str = ""
    curl: str = ""
    page_url: str = ""


class CostReport(Part):
    """What the run itself cost; None where it could not be measured, never zero. What was cached cost nothing again.

    `seconds` are those of the run from its (last) start; `work_seconds` those of its stages, all attempts, side by side
    added up; the rest is as in `flows.cost.cost.Cost`. `saved` is what the cached results had cost.
    """

    seconds: float
    work_seconds: float | None = None
    gpu_hours: float | None = None
    energy_kwh: float | None = None
    energy_of: list[str] = Field(default_factory=list)
    tokens: int | None = None
    flops: float | None = None
    money: float | None = None
    currency: str = ""
    attempts: int | None = None
    trained_tokens: int | None = None
    peak_memory_gib: float | None = None
    saved: Cost | None = None


class RunReport(Part):
    """One whole run, as written to `report.json` and drawn in `report.html`."""

    run_id: str
    run_name: str
    run_url: str
    line: str = ""
    title: str
    description: str = ""
    created: str
    base_model: str
    trained_model_uri: str
    split: str = "test"
    stages: list[StageReport]
    data: DataReport
    training: list[TrainingReport]
    metrics: Metrics
    generation: Generation
    examples: list[Example]
    gate: GateReport
    variants: list[VariantReport] = Field(default_factory=list)
    endpoint: EndpointReport | None
    promotion: list[CheckReport] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    cost: CostReport
    versions: dict[str, str]
