import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.corpus.fact import Fact
from flows.corpus.ladder import SplitConfig, rung_of, split_ladder, split_rows
from flows.corpus.leaks import remove_leaks
from flows.corpus.row import Document, Row


def fact(name, rows=2, reworded=1):
    def row(n, kind):
        return Row(
            id=f"{name}#{kind}{n}", source="s", group=name, context="", question=f"{kind} {n} {name}?", answer=name
        )

    return Fact(
        group=name,
        source="s",
        rows=[row(n, "q") for n in range(rows)],
        reworded=[row(n, "r").model_copy(update={"reworded_by": "template"}) for n in range(reworded)],
        documents=[f"all about {name}"],
    )


names = st.lists(st.text(min_size=1), unique=True, max_size=60)


@given(names, st.text(min_size=1))
def test_a_fact_keeps_its_rung_when_others_are_added(groups, more):
    split = SplitConfig()
    before = {row.id: (row.rung, row.split) for row in split_ladder([fact(g) for g in groups], split).rows}
    after = {row.id: (row.rung, row.split) for row in split_ladder([fact(g) for g in {*groups, more}], split).rows}
    assert before.items() <= after.items()


@given(names)
def test_no_fact_is_both_trained_and_held_out_but_as_reworded(groups):
    ladder = split_ladder([fact(g) for g in groups], SplitConfig(studied=0.3, unseen=0.3, reworded=0.5))
    by_rung = {
        rung: {row.group for row in ladder.rows if row.rung == rung}
        for rung in ("trained", "reworded", "studied", "unseen")
    }
    assert by_rung["reworded"] <= by_rung["trained"]
    assert not by_rung["trained"] & (by_rung["studied"] | by_rung["unseen"])
    assert not by_rung["studied"] & by_rung["unseen"]
    trained_questions = {row.question for row in ladder.rows if row.rung == "trained"}
    assert not trained_questions & {row.question for row in ladder.rows if row.rung != "trained"}
    assert {d.group for d in ladder.documents} == by_rung["trained"] | by_rung["studied"]
    assert all((row.split == "train") == (row.rung == "trained") for row in ladder.rows)


@given(names)
def test_dev_and_test_share_no_fact(groups):
    ladder = split_ladder([fact(g) for g in groups], SplitConfig(studied=0.3, unseen=0.3, reworded=0.9, dev=0.5))
    dev, test = ({row.group for row in ladder.rows if row.split == split} for split in ("dev", "test"))
    assert not dev & test


def test_shares_are_about_what_was_asked():
    rungs = [rung_of(f"group {n}", SplitConfig(studied=0.2, unseen=0.1)) for n in range(5000)]
    assert rungs.count("studied") == pytest.approx(1000, abs=120)
    assert rungs.count("unseen") == pytest.approx(500, abs=90)


def test_facts_without_another_wording_are_counted():
    facts = [fact(f"g{n}", reworded=0) for n in range(200)]
    ladder = split_ladder(facts, SplitConfig(reworded=1))
    assert not any(row.rung == "reworded" for row in ladder.rows)
    assert ladder.not_reworded == sum(rung_of(f.group, SplitConfig()) == "trained" for f in facts)


def test_the_articles_split_says_how_many_rows_leak():
    ladder = split_rows([fact(f"g{n}") for n in range(500)], SplitConfig(protocol="rows"))
    test = [row for row in ladder.rows if row.split == "test"]
    assert len(test) == pytest.approx(100, abs=30)
    trained = {row.group for row in ladder.rows if row.split == "train"}
    assert ladder.leaking_test_rows == sum(row.group in trained for row in test) > 0.8 * len(test)
    assert len(ladder.documents) == 500


DEFINITION = "A transport document which the carrier issues to the shipper for goods received on board."


def row(name, rung, question="What is it?", answer=DEFINITION, context=""):
    split = "train" if rung == "trained" else "test"
    return Row(
        id=name, source="s", group=name, context=context, question=question, answer=answer, split=split, rung=rung
    )


def test_near_duplicates_of_held_out_facts_leave_training_not_the_test():
    rows = [
        row("a", "unseen"),
        row("b", "trained", answer=DEFINITION.replace("issues", "gives")),
        row("c", "trained", question="Which term?", answer="Customs duty"),
        row("b2", "reworded", answer="same"),
    ]
    rows[3] = rows[3].model_copy(update={"group": "b"})
    documents = [
        Document(id="1", source="s", group="c", text=f"As we said: {DEFINITION} And so on."),
        Document(id="2", source="s", group="c", text="Customs duty is a tax on goods that cross a border."),
    ]
    cleaned = remove_leaks(rows, documents)
    assert [r.id for r in cleaned.rows] == ["a", "c"]
    assert [d.id for d in cleaned.documents] == ["2"]
    assert cleaned.removed == 3


def test_a_studied_fact_may_be_read_but_not_asked():
    rows = [row("a", "studied"), row("b", "trained")]
    document = Document(id="1", source="s", group="a", text=DEFINITION)
    cleaned = remove_leaks(rows, [document])
    assert [r.id for r in cleaned.rows] == ["a"]
    assert cleaned.documents == [document]
