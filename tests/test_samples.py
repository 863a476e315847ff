"""The shipped sample corpora keep the promises the README makes of them."""

import json
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "flows" / "corpus" / "samples"


@pytest.mark.parametrize(("name", "terms", "exams", "passages"), [("trade_en", 150, 40, 15), ("trade_ko", 40, 15, 5)])
def test_sample_sizes(name, terms, exams, passages):
    root = SAMPLES / name
    flat = json.loads((root / "terms/terms_data_1.json").read_text("utf-8"))
    nested = json.loads((root / "terms/terms_data_2.json").read_text("utf-8"))
    names = [t.get("term") or t["kor_term"] for t in [*flat, *(t for part in nested for t in part)]]
    assert len(set(names)) == len(names) >= terms
    marker = "정답:" if name == "trade_ko" else "Answer:"
    texts = [json.loads(f.read_text("utf-8"))["fixed_text"] for f in sorted((root / "exams").glob("*.json"))]
    assert sum(text.count(marker) for text in texts) >= exams
    lines = (root / "transcripts/lectures.jsonl").read_text("utf-8").splitlines()
    assert len(lines) >= passages
    assert all(json.loads(json.loads(line)["json_output"])["qa_pairs"] for line in lines)
