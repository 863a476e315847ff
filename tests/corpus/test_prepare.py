import json

import pytest

from flows.corpus.row import read_documents, read_rows
from flows.errors import ConfigError, DataError
from flows.reporting.contract import DataReport


@pytest.mark.parametrize(("language", "least"), [("en", 480), ("ko", 140)])
def test_the_samples_make_a_ladder_and_a_whole_card(prepare, language, least):
    sources = {kind: [{"path": f"sample:trade_{language}/{kind}"}] for kind in ("exams", "terms", "transcripts")}
    card, output = prepare(split={"reworded": 0.3}, language=language, **sources)
    rows = read_rows(output)
    assert DataReport.model_validate(card).rows == len(rows) >= least
    assert sum(card["by_split"].values()) == sum(card["by_rung"].values()) == len(rows)
    assert min(card["by_rung"].values()) > 0
    assert card["reworded_test"] == sum((row.rung, row.split) == ("reworded", "test") for row in rows) > 0
    assert card["dropped"] == {}
    assert len({row.id for row in rows}) == len(rows)
    assert len(read_documents(output)) == card["documents"]
    assert json.loads((output / "data_card.json").read_text("utf-8")) == card


def test_no_unseen_definition_stands_in_the_pretraining_text(prepare):
    sources = {kind: [{"path": f"sample:trade_en/{kind}"}] for kind in ("exams", "terms", "transcripts")}
    _, output = prepare(**sources)
    text = "\n".join(document.text for document in read_documents(output))
    unseen = [row.answer for row in read_rows(output) if row.rung == "unseen" and len(row.answer) > 40]
    assert unseen
    assert not [answer for answer in unseen if answer in text]


def test_duplicate_rows_are_counted_not_trained_twice(prepare, table):
    card, _ = prepare(
        tables=[table("What is part 3?,Part number 3 of the machine.", "what is PART 3,part number 3 of the machine")]
    )
    assert card["dropped"] == {"duplicate": 2}
    assert card["by_source"]["table"] == card["rows"]


def test_a_duplicate_is_named_with_its_place(prepare, table):
    card, _ = prepare(tables=[table("What is part 3?,Part number 3 of the machine.")])
    [drop] = card["dropped_examples"]
    assert (drop["file"].endswith("qa.csv"), drop["line"]) == (True, 32)


def test_another_wording_that_is_trained_elsewhere_is_no_test_question(prepare, tmp_path):
    lines = ["question,answer,other"]
    for n in range(20):
        what, define = f"What is part {n}?", f"Define part {n}."
        lines += [f"{what},Answer {n} to it.,{define}", f"{define},The answer {n} is this.,{what}"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    card, output = prepare(
        split={"reworded": 1, "studied": 0, "unseen": 0.2},
        tables=[{"path": str(tmp_path / "t.csv"), "alternative": "other"}],
    )
    assert card["by_rung"]["reworded"] == 0
    assert card["not_reworded"] > 0


def test_the_card_says_how_rows_were_reworded(prepare, table):
    card, _ = prepare(split={"reworded": 1}, tables=[table()])
    assert card["reworded_by"] == {"instruction": card["by_rung"]["reworded"]}


def test_wording_of_templates_alone_is_no_leak(prepare):
    domain = "international trade, customs and supply chain management"
    card, _ = prepare(domain=domain, terms=[{"path": "sample:trade_en/terms"}])
    assert card["leaks_removed"] == 0


def test_the_same_question_with_two_answers_keeps_both(prepare, table):
    card, output = prepare(tables=[table("What is part 3?,Another answer.")])
    rows = [row for row in read_rows(output) if row.question == "What is part 3?" and row.rung != "reworded"]
    assert len({row.id for row in rows}) == len(rows) == 2
    assert len({row.rung for row in rows}) == 1


def test_too_few_rows_say_what_was_dropped(prepare, table, tmp_path):
    with pytest.raises(DataError, match=r"only 5 usable rows; at least 20.*1 x no-answer(?s:.*)qa\.csv, line 7"):
        prepare(tables=[table("What about this?,", rows=5)])
    assert not (tmp_path / "work" / "output").exists()


def test_no_source_at_all_is_a_configuration_error(prepare):
    with pytest.raises(ConfigError, match="no source is given. Add at least one to exams, terms, transcripts, tables"):
        prepare()


def test_a_split_with_nothing_to_test_is_refused(prepare, table):
    with pytest.raises(DataError, match="nothing to train on or nothing to test on"):
        prepare(split={"studied": 0, "unseen": 0, "reworded": 0}, tables=[table()])


def test_the_articles_protocol_counts_leaks(prepare):
    card, _ = prepare(split={"protocol": "rows"}, terms=[{"path": "sample:trade_en/terms"}])
    assert card["protocol"] == "rows"
    assert card["leaking_test_rows"] > 20
    assert card["leaks_removed"] == 0
