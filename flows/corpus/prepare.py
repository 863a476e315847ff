"""The prepare stage: sources in, one data set with a ladder of held-out rows and a data card out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.config import Config
from flows.corpus.fact import Fact, normalised
from flows.corpus.ladder import Ladder, SplitConfig, split_ladder, split_rows
from flows.corpus.leaks import remove_leaks
from flows.corpus.row import HELD_OUT_RUNGS, Drop, Row, write_jsonl
from flows.corpus.sources.registry import Sources, read_sources
from flows.errors import DataError
from flows.progress import Progress

MINIMUM_ROWS = 20
SHOWN_DROPS = 20


class PrepareConfig(Config):
    """What prepare depends on, besides the content of the files."""

    sources: Sources
    split: SplitConfig


def run(config: PrepareConfig, inputs: Mapping[str, Path], workdir: Path, progress: Progress) -> dict[str, Any]:
    """Write `rows.jsonl`, `documents.jsonl`, `drops.jsonl` and `data_card.json` to `workdir/output`.

    Returns:
        The data card: counts as in `flows.reporting.contract.DataReport`.

    Raises:
        ConfigError: no source is given.
        DataError: a source cannot be read, or there are fewer than 20 usable rows, or nothing to train or test on.
    """
    progress(0, 3, "reading sources")
    found = read_sources(config.sources)
    facts, duplicates = join_facts(found.facts)
    facts = without_trained_wordings(facts)
    drops = found.drops + duplicates
    require_enough(facts, drops)
    progress(1, 3, f"splitting {sum(len(fact.rows) for fact in facts)} rows")
    ladder = split_rows(facts, config.split) if config.split.protocol == "rows" else split_ladder(facts, config.split)
    card = _write(config, ladder, drops, workdir / "output")
    progress(3, 3, f"{card['rows']} rows, {card['documents']} texts")
    return card


def join_facts(facts: list[Fact]) -> tuple[list[Fact], list[Drop]]:
    """Facts of one group made one; a question that comes again with the same answer becomes a drop."""
    joined: dict[str, Fact] = {}
    seen: set[tuple[str, str]] = set()
    taken: set[str] = set()
    drops: list[Drop] = []
    for fact in facts:
        rows: list[Row] = []
        for row in fact.rows:
            key = (normalised(row.question), normalised(row.answer))
            if key in seen:
                drops.append(Drop(file=fact.file, line=fact.line, reason="duplicate", detail=row.question[:80]))
                continue
            seen.add(key)
            rows.append(_with_own_id(row, taken))
        if not rows:
            continue
        before = joined.get(fact.group)
        reworded = [_with_own_id(row, taken) for row in fact.reworded]
        joined[fact.group] = Fact(
            group=fact.group,
            source=fact.source,
            rows=(before.rows if before else []) + rows,
            reworded=(before.reworded if before else []) + reworded,
            documents=list(dict.fromkeys((before.documents if before else []) + fact.documents)),
        )
    return list(joined.values()), drops


def without_trained_wordings(facts: list[Fact]) -> list[Fact]:
    """Reworded questions that are somebody's training question are left out: they would ask what was trained."""
    asked = {normalised(row.user_message) for fact in facts for row in fact.rows}
    return [
        fact.model_copy(
            update={"reworded": [row for row in fact.reworded if normalised(row.user_message) not in asked]}
        )
        for fact in facts
    ]


def _with_own_id(row: Row, taken: set[str]) -> Row:
    """The same row, numbered if another one (a second description of a term, say) already has its id."""
    name, number = row.id, 2
    while name in taken:
        name, number = f"{row.id}~{number}", number + 1
    taken.add(name)
    return row if name == row.id else row.model_copy(update={"id": name})


def require_enough(facts: list[Fact], drops: list[Drop]) -> None:
    """Refuse a corpus that is too small to train and test on.

    Raises:
        DataError: fewer than 20 rows; says how many records were dropped and why.
    """
    rows = sum(len(fact.rows) for fact in facts)
    if rows >= MINIMUM_ROWS:
        return
    reasons = ", ".join(f"{count} x {reason}" for reason, count in Counter(d.reason for d in drops).most_common())
    shown = "".join(f"\n  {_place(drop)}: {drop.reason}: {drop.detail}" for drop in drops[:5])
    raise DataError(
        f"sources: only {rows} usable rows; at least {MINIMUM_ROWS} are needed to train and test. "
        f"Dropped: {reasons or 'nothing'}. Add sources, or mend the records below.{shown}"
    )


def _place(drop: Drop) -> str:
    return f"{drop.file}, line {drop.line}" if drop.line else drop.file


def _write(config: PrepareConfig, ladder: Ladder, drops: list[Drop], output: Path) -> dict[str, Any]:
    keep_leaks = config.split.protocol == "rows"
    rows, documents, removed = ladder.rows, ladder.documents, 0
    if not keep_leaks:
        cleaned = remove_leaks(rows, documents)
        rows, documents, removed = cleaned.rows, cleaned.documents, cleaned.removed
    if not any(row.split == "train" for row in rows) or not any(row.split == "test" for row in rows):
        raise DataError(
            "split: with these shares there is nothing to train on or nothing to test on. Lower split.studied, "
            "split.unseen and split.dev, or add sources."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_jsonl(output / "rows.jsonl", rows)
    write_jsonl(output / "documents.jsonl", documents)
    write_jsonl(output / "drops.jsonl", drops)
    card = _card(config, ladder, rows, drops) | {"leaks_removed": removed, "documents": len(documents)}
    (output / "data_card.json").write_text(json.dumps(card, ensure_ascii=False, indent=1), encoding="utf-8")
    return card


def _card(config: PrepareConfig, ladder: Ladder, rows: list[Row], drops: list[Drop]) -> dict[str, Any]:
    rungs = Counter(row.rung for row in rows)
    splits = Counter(row.split for row in rows)
    return {
        "rows": len(rows),
        "by_source": dict(sorted(Counter(row.source for row in rows).items())),
        "by_rung": {rung: rungs[rung] for rung in ("trained", *HELD_OUT_RUNGS)},
        "reworded_test": sum(row.rung == "reworded" and row.split == "test" for row in rows),
        "by_split": {split: splits[split] for split in ("train", "dev", "test")},
        "dropped": dict(Counter(drop.reason for drop in drops).most_common()),
        "protocol": config.split.protocol,
        "leaking_test_rows": ladder.leaking_test_rows,
        "not_reworded": ladder.not_reworded,
        "reworded_by": dict(Counter(row.reworded_by for row in rows if row.rung == "reworded").most_common()),
        "dropped_examples": [drop.model_dump() for drop in drops[:SHOWN_DROPS]],
    }
