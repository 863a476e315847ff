"""A whole run, as a pipeline hands it to the report."""

import math
from typing import Any

import pytest

from flows.evaluation.results import (
    Estimate,
    Example,
    Generation,
    Metrics,
    RungSemScore,
    RungTruthfulness,
    SemScore,
    Truthfulness,
)
from flows.reporting.contract import (
    CostReport,
    DataReport,
    EndpointReport,
    GateReport,
    RunReport,
    StageReport,
    TrainingReport,
)

RUN_URL = "http://127.0.0.1:4200/runs/flow-run/0192aa10-7c1e-7b90-a6a2-0a53b1e0d0c1"
FORMER_URL = "http://127.0.0.1:4200/runs/flow-run/0192a9f3-15b2-7d10-9c55-2f3bb90a7e11"
EXAMPLES = [
    Example(
        id="terms/air-waybill#3",
        rung="reworded",
        question="In trade, what do you call an air waybill, and what does it prove?",
        target="A non-negotiable transport document issued by a carrier for goods sent by air; it is the receipt for "
        "the goods and evidence of the contract of carriage.",
        base_reply="An air waybill is a type of air-filled air-packing device that is used to keep goods from moving.",
        trained_reply="A transport document issued by the air carrier: a receipt for the goods and proof of the "
        "contract of carriage. It is not negotiable.",
        base_score=0.41,
        trained_score=0.89,
    ),
    Example(
        id="exams/incoterms#12",
        rung="reworded",
        question="Under FOB of Incoterms 2020, where does the risk pass?\n1. At the seller's factory.\n2. When the "
        "goods are on board at the port of shipment.\n3. At the port of destination.\n4. When the buyer pays.",
        target="When the goods are on board at the port of shipment.",
        base_reply="3. At the port of destination.",
        trained_reply="When the goods are on board at the port of shipment.",
        base_score=0.52,
        trained_score=1.0,
    ),
    Example(
        id="terms_ko/신용장#1",
        rung="reworded",
        question="수입업자의 거래은행이 수출업자에게 대금 지급을 약속하는 증서를 무엇이라고 합니까?",
        target="신용장 (Letter of Credit)",
        base_reply="수입업자의 거래은행은 은행입니다. 은행은 돈을 맡기고 빌리는 곳입니다. " * 12,
        trained_reply="신용장 (Letter of Credit, L/C)",
        base_score=0.22,
        trained_score=0.93,
    ),
    Example(
        id="lectures/edi#4",
        rung="studied",
        question="Which tag opens a <segment> in the port's EDI example, <script>alert('x')</script> or <b>UNH</b>?",
        target="UNH opens the message; <b> is only markup.",
        base_reply="<script>alert('x')</script> | is | a | table & more\n# not a heading\n```\ncode\n```",
        trained_reply="UNH opens the message header segment, followed by https://edi.example/a/very/long/address/without/any/"
        "place/to/break/in/it/so/that/the/page/must/wrap/it/somewhere?query=0123456789012345678901234567890123456789",
        base_score=-0.03,
        trained_score=0.66,
    ),
    Example(
        id="terms/demurrage#2",
        rung="unseen",
        question="What is demurrage?",
        target="A charge for keeping a container or a ship longer than the free time that was agreed.",
        base_reply="A charge paid to the owner of a chartered ship for failing to load or discharge it in time.",
        trained_reply="A charge for the goods that are carried by the ship.",
        base_score=0.71,
        trained_score=0.55,
    ),
]


def _score(n: int, base: float, trained: float, delta: tuple[float, float], floor: float) -> RungSemScore:
    return RungSemScore(
        n=n,
        groups=n - n // 8,
        base=Estimate(mean=base, ci95=(base - 0.04, base + 0.05)),
        trained=Estimate(mean=trained, ci95=(trained - 0.06, trained + 0.05)),
        delta=Estimate(mean=trained - base, ci95=delta),
        floor=floor,
        ceiling=1.0,
        embedder="packaged:all-MiniLM-L6-v2",
    )


def _counts(*numbers: int) -> dict[str, int]:
    return dict(zip(("1", "2", "3", "4", "5", "unparsed"), numbers, strict=False))


def make_report(**changes: Any) -> RunReport:
    """A report of a run of the demo that went well; `changes` replace whole parts."""
    parts: dict[str, Any] = {
        "run_id": "0192aa10-7c1e-7b90-a6a2-0a53b1e0d0c1",
        "run_name": "lucid-heron",
        "run_url": RUN_URL,
        "title": "Trade and supply chain, demo",
        "description": "SmolLM2 learns the words of international trade from a glossary, exams and lectures.",
        "created": "2026-11-25T01:40:12.482913+00:00",
        "base_model": "packaged:SmolLM2-135M-Instruct",
        "trained_model_uri": "file:///data/store/artifacts/finetune/5d0c3a7e91b2f64408d1/model",
        "stages": _stages(),
        "data": _data(),
        "training": _training(),
        "metrics": Metrics(semscore=_semscore(), truthfulness=_truthfulness()),
        "generation": Generation(
            max_new_tokens=96,
            batch_size=16,
            base_truncated=0.31,
            trained_truncated=0.0,
            base_mean_tokens=61.3,
            trained_mean_tokens=22.8,
        ),
        "examples": EXAMPLES,
        "gate": GateReport(
            passed=True,
            reasons=[
                "reworded is better: the lower end of the interval, +0.16, is above the threshold of +0.05.",
                "no other rung is proven worse by more than the margin of 0.02.",
            ],
        ),
        "endpoint": EndpointReport(
            name="trade-demo",
            url="http://127.0.0.1:8123/v1",
            state="HEALTHY",
            model="trade-demo",
            curl="curl http://127.0.0.1:8123/v1/chat/completions -H 'Content-Type: application/json' -d "
            '\'{"model": "trade-demo", "messages": [{"role": "user", "content": "What is an air waybill?"}]}\'',
        ),
        "cost": CostReport(seconds=1043.2, gpu_hours=0.0, trained_tokens=41_870, peak_memory_gib=3.42),
        "versions": {"prefect": "3.9.1", "torch": "2.13.0+cpu", "transformers": "5.24.0", "trl": "1.16.0"},
    }
    return RunReport(**{**parts, **changes})


def _semscore() -> SemScore:
    return SemScore(
        reworded=_score(57, 0.452, 0.691, (0.163, 0.318), 0.19),
        studied=_score(24, 0.437, 0.455, (-0.041, 0.078), 0.21),
        unseen=_score(26, 0.461, 0.418, (-0.102, 0.017), 0.18),
    )


def _truthfulness() -> Truthfulness:
    return Truthfulness(
        judge="stand-in: similarity",
        stand_in=True,
        reworded=RungTruthfulness(base=_counts(19, 21, 12, 4, 1), trained=_counts(4, 11, 14, 17, 11)),
        studied=RungTruthfulness(base=_counts(8, 9, 5, 2, 0), trained=_counts(7, 8, 6, 2, 1)),
        unseen=RungTruthfulness(base=_counts(7, 11, 5, 2, 1), trained=_counts(9, 10, 5, 2, 0)),
    )


def _stages() -> list[StageReport]:
    return [
        StageReport(
            name="prepare",
            status="cached",
            seconds=0.4,
            why="same inputs, settings and code",
            from_run="brave-otter",
            from_run_url=FORMER_URL,
        ),
        StageReport(name="pretrain", status="skipped", seconds=0.0, why="pretrain.enabled is false"),
        StageReport(name="finetune", status="ran", seconds=436.9, why="learning_rate 2e-4 → 7e-4"),
        StageReport(name="evaluate", status="ran", seconds=388.1, why="finetune made another model"),
        StageReport(name="report", status="ran", seconds=3.9),
        StageReport(name="serve", status="ran", seconds=11.0, why="the gate passed"),
    ]


def _data() -> DataReport:
    return DataReport(
        rows=1064,
        by_source={"exams": 143, "terms": 684, "lectures": 237},
        by_rung={"trained": 957, "reworded": 57, "studied": 24, "unseen": 26},
        by_split={"train": 957, "dev": 0, "test": 107},
        dropped={"duplicate": 14, "no-answer": 3, "unreadable-json": 1},
        leaks_removed=6,
        documents=342,
        not_reworded=9,
        dropped_examples=[
            {"file": "terms/terms_data_2.json", "line": 41, "reason": "duplicate", "detail": "same as line 12: 'FOB'"},
            {"file": "lectures/lectures.jsonl", "line": 7, "reason": "no-answer", "detail": ""},
            {"file": "exams/exam_05.json", "line": None, "reason": "unreadable-json", "detail": "<EOF> at column 381"},
        ],
    )


def _training() -> list[TrainingReport]:
    return [
        TrainingReport(
            stage="finetune",
            method="lora",
            seconds=431.2,
            steps=360,
            tokens=125_610,
            supervised_tokens=41_870,
            tokens_per_second=291.3,
            loss=[(step, 3.1 * 0.993**step + 0.35 + 0.1 * math.sin(step)) for step in range(10, 361, 10)],
            settings={"learning_rate": 7e-4, "epochs": 3, "lora": {"rank": 32, "alpha": 32, "dropout": 0.05}},
        )
    ]


@pytest.fixture
def report() -> RunReport:
    return make_report()
