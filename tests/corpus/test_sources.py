import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.corpus.fact import term_key
from flows.corpus.question_templates import load_templates
from flows.corpus.row import read_rows
from flows.corpus.sources import exams, tables, terms, transcripts
from flows.corpus.sources.exams import ExamSource, repair_options, split_options
from flows.corpus.sources.registry import Sources, in_folder, named_files, problems, read_sources
from flows.corpus.sources.tables import TableSource
from flows.corpus.sources.terms import TermSource
from flows.corpus.sources.transcripts import TranscriptSource, as_text
from flows.errors import DataError
from flows.placeholders import fill

EN = load_templates("en", "trade")


def test_glued_options_are_repaired_and_found():
    question = "Which rule? 1.Cover (C).2.No insurance at 1.5 percent.3.Nothing."
    repaired = repair_options(question)
    assert repaired == "Which rule? 1. Cover (C). 2. No insurance at 1.5 percent. 3. Nothing."
    assert split_options(repaired) == ("Which rule?", ["Cover (C).", "No insurance at 1.5 percent.", "Nothing."])


def test_exam_items_become_rows_and_a_missing_answer_a_drop(write):
    path = write(
        "exam.json",
        {"fixed_text": "Question: A? 1. x 2. y Answer: x Question: B without answer Question: C? Answer: z"},
    )
    found = exams.read(ExamSource(path=path), EN, "sources.exams[0]")
    assert [(fact.rows[0].question, fact.rows[0].answer) for fact in found.facts] == [
        ("A? 1. x 2. y", "x"),
        ("C?", "z"),
    ]
    assert found.facts[0].reworded[0].question == "A? 1. y 2. x"
    assert found.facts[1].reworded == []
    [drop] = found.drops
    assert (drop.file, drop.reason) == (path, "no-answer")
    assert "item 2" in drop.detail


@pytest.mark.parametrize(
    ("answer", "resolved", "shuffles"),
    [
        ("2", "FOB.", True),
        ("2. FOB.", "FOB.", True),
        ("(2)", "FOB.", True),
        ("② FOB", "FOB.", True),
        ("FOB.", "FOB.", True),
        ("3 days", "3 days", True),
        ("9", "9", False),
    ],
)
def test_an_answer_by_number_becomes_the_option_s_words(write, answer, resolved, shuffles):
    path = write("exam.json", {"fixed_text": f"Question: Which term? 1. EXW. 2. FOB. 3. CIF. Answer: {answer}"})
    [fact] = exams.read(ExamSource(path=path), EN, "x").facts
    assert fact.rows[0].answer == resolved
    assert bool(fact.reworded) is shuffles


def test_a_folder_that_looks_like_a_file_is_not_read(tmp_path, write):
    write("exam.json", {"fixed_text": "Question: A? Answer: b"})
    (tmp_path / "more.json").mkdir()
    assert len(exams.read(ExamSource(path=str(tmp_path)), EN, "x").facts) == 1


def test_korean_markers_are_found_exactly():
    ko = load_templates("ko", "무역")
    found = exams.read(ExamSource(path="sample:trade_ko/exams"), ko, "x")
    assert len(found.facts) == 20
    assert found.drops == []
    assert all(len(split_options(fact.rows[0].question)[1]) == 4 for fact in found.facts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", r"exam\.json, line 1, column 2: not JSON"),
        ({"text": "Question: A? Answer: b"}, 'exam\\.json: no field "fixed_text"'),
        ({"fixed_text": "질문: A 정답: b"}, "holds no 'Question:'"),
        ("질문: 가나다 정답: 라".encode("cp949"), "not UTF-8; it looks like CP949.*iconv -f CP949"),
        ('{"fixed_text": "Question: A"}'.encode("utf-16"), "not UTF-8; it looks like UTF-16"),
        ("[" * 100_000, "the JSON cannot be read|not JSON"),
    ],
)
def test_a_bad_exam_file_is_named(write, content, message):
    path = write("exam.json", content)
    with pytest.raises(DataError, match=message):
        exams.read(ExamSource(path=path), EN, "sources.exams[0]")


def test_paths_that_hold_nothing_are_named(tmp_path, write):
    with pytest.raises(DataError, match=r"sources\.exams\[0\]: there is no file or folder"):
        exams.read(ExamSource(path=str(tmp_path / "nowhere")), EN, "sources.exams[0]")
    with pytest.raises(DataError, match=r"sources\.exams\[0\]: the folder .* holds no \.json file"):
        exams.read(ExamSource(path=str(tmp_path)), EN, "sources.exams[0]")
    with pytest.raises(DataError, match="no sample 'trade_xx'.*sample:trade_en"):
        exams.read(ExamSource(path="sample:trade_xx"), EN, "sources.exams[0]")


def test_terms_are_asked_both_ways_and_bad_entries_counted(write):
    path = write(
        "terms.json",
        [
            [{"kor_term": "신용장", "eng_term": "Letter of Credit", "description": "은행의 확약"}],
            [{"term": "FOB", "description": "Free on board."}, {"term": "CIF"}, {"description": "what?"}, 7],
        ],
    )
    found = terms.read(TermSource(path=path), EN, "x")
    assert [row.answer for row in found.facts[0].rows] == ["은행의 확약", "신용장 (Letter of Credit)"]
    assert found.facts[1].rows[0].question == 'What does the term "FOB" mean in trade?'
    trained = {row.question for fact in found.facts for row in fact.rows}
    assert not trained & {row.question for fact in found.facts for row in fact.reworded}
    assert [(drop.reason, drop.detail.split(":")[0]) for drop in found.drops] == [
        ("no-description", "entry 2.2"),
        ("no-term", "entry 2.3"),
        ("not-an-object", "entry 2.4"),
    ]


def test_a_glossary_that_is_no_list_is_refused(write):
    with pytest.raises(DataError, match="JSON list of terms, this one is a dict"):
        terms.read(TermSource(path=write("t.json", {"term": "a"})), EN, "x")


def test_transcript_answers_may_be_lists_and_numbers(write):
    pairs = [
        {"question": "q1", "answer": ["a", "b"]},
        {"question": "q2", "answer": 11},
        {"question": "q3", "answer": None},
        {"question": "q4", "answer": [{"x": 1}]},
        {"question": "", "answer": "a"},
        "not a pair",
    ]
    lines = [
        json.dumps({"context": "c1", "json_output": json.dumps({"qa_pairs": pairs})}),
        json.dumps({"context": "c2", "json_output": '{"qa_pairs": [{"question": "cut o'}),
        json.dumps({"context": "c3", "json_output": '{"pairs": []}'}),
        json.dumps({"json_output": "{}"}),
        "{broken",
        "[1]",
    ]
    path = write("t.jsonl", "\n".join(lines))
    found = transcripts.read(TranscriptSource(path=path), EN, "x")
    assert [(row.question, row.answer) for fact in found.facts for row in fact.rows] == [("q1", "a, b"), ("q2", "11")]
    assert [(drop.line, drop.reason) for drop in found.drops] == [
        (1, "no-answer"),
        (1, "no-answer"),
        (1, "no-question"),
        (1, "no-question"),
        (2, "json-output-not-json"),
        (3, "no-qa-pairs"),
        (4, "no-context"),
        (5, "not-json"),
        (6, "not-an-object"),
    ]


def test_a_line_of_100_megabytes_is_dropped_and_the_next_one_read(tmp_path):
    path = tmp_path / "t.jsonl"
    good = json.dumps({"context": "c", "json_output": {"qa_pairs": [{"question": "q", "answer": "a"}]}})
    with path.open("w") as stream:
        stream.write('{"context": "' + "x" * 100_000_000 + '"}\n' + good + "\n")
    found = transcripts.read(TranscriptSource(path=str(path)), EN, "x")
    assert [(drop.line, drop.reason) for drop in found.drops] == [(1, "line-too-long")]
    assert len(found.facts) == 1


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_every_kind_give_the_same_rows(tmp_path, kind):
    import pandas as pd

    data = pd.DataFrame(
        {"q": ["What, exactly?", "Why?", ""], "a": ["This.", "That.", "x"], "other": ["Which?", "", ""]}
    )
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        data.to_parquet(path)
    elif kind == "jsonl":
        data.to_json(path, orient="records", lines=True)
    else:
        data.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    found = tables.read(TableSource(path=str(path), question="q", answer="a", alternative="other"), EN, "x")
    assert [(fact.rows[0].question, fact.rows[0].answer) for fact in found.facts] == [
        ("What, exactly?", "This."),
        ("Why?", "That."),
    ]
    assert [fact.reworded[0].reworded_by for fact in found.facts] == ["alternative-question", "instruction"]
    assert [drop.reason for drop in found.drops] == ["no-question"]


def test_a_row_with_a_comma_outside_quotes_is_dropped_not_cut(table):
    found = tables.read(TableSource(**table("What is X?,A clause, which is long", rows=2)), EN, "x")
    assert len(found.facts) == 2
    [drop] = found.drops
    assert (drop.reason, drop.line) == ("too-many-cells", 4)
    assert "quotes" in drop.detail


def test_half_a_surrogate_pair_and_nan_become_no_text(write):
    pairs = '{"qa_pairs": [{"question": "a\\ud83d b", "answer": "c"}, {"question": "d", "answer": NaN}]}'
    path = write("t.jsonl", json.dumps({"context": "c", "json_output": pairs}))
    found = transcripts.read(TranscriptSource(path=path), EN, "x")
    assert [(row.question, row.answer) for fact in found.facts for row in fact.rows] == [("a b", "c")]
    assert [drop.reason for drop in found.drops] == ["no-answer"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(table):
    source = TableSource(**table(), group="lecture")
    with pytest.raises(DataError, match=r"no column 'lecture'. There are: question, answer.*sources\.tables\[2\]"):
        tables.read(source, EN, "sources.tables[2]")


def test_a_file_that_is_no_parquet_is_named(write):
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as Parquet"):
        tables.read(TableSource(path=write("t.parquet", "nonsense")), EN, "x")


def test_templates_can_be_overridden_in_part(write, tmp_path):
    path = write("mine.yaml", "terms:\n  definition:\n    trained: ['Say what {term} is.']\n")
    mine = load_templates("en", "trade", path)
    assert mine.terms.definition.trained == ["Say what {term} is."]
    assert mine.terms.name == EN.terms.name
    with pytest.raises(DataError, match=r"mine2\.yaml: terms\.defintion: Extra inputs"):
        load_templates("en", "", write("mine2.yaml", "terms:\n  defintion: 1\n"))


def test_braces_in_a_text_are_not_filled_in():
    assert fill("{question} -> {answer} {other}", question="a {answer}", answer="b") == "a {answer} -> b {other}"


@given(st.text(), st.text())
def test_a_bracketed_abbreviation_does_not_make_another_term(term, inside):
    inside = inside.translate({ord(c): None for c in "()[]（）［］"})
    bare = term.translate({ord(c): None for c in "()[]（）［］"})
    if term_key(bare):
        assert term_key(f"{bare} ({inside})") == term_key(bare)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_as_text_always_gives_one_line(value):
    text = as_text(value)
    assert text == " ".join(text.split())


@given(st.text(), st.lists(st.text(min_size=1), max_size=5))
def test_repairing_options_twice_changes_nothing(stem, options):
    once = repair_options(stem + "".join(f".{n}.{option}" for n, option in enumerate(options, 1)))
    assert repair_options(once) == once


def test_prepared_rows_come_back_as_written(prepare, table):
    card, output = prepare(tables=[table()])
    assert len(read_rows(output)) == card["rows"]


def test_relative_paths_are_below_the_data_folder(tmp_path):
    (tmp_path / "terms.csv").write_text("question,answer\nWhat?,That.\n", "utf-8")
    (tmp_path / "words.yaml").write_text("{}", "utf-8")
    sources = Sources(folder=str(tmp_path), tables=[TableSource(path="terms.csv")], templates="words.yaml")
    assert problems(sources) == []
    assert set(named_files(sources).values()) == {tmp_path / "terms.csv", tmp_path / "words.yaml"}
    assert [fact.rows[0].answer for fact in read_sources(sources).facts] == ["That."]
    absolute = Sources(folder="/elsewhere", tables=[TableSource(path=str(tmp_path / "terms.csv"))])
    assert problems(absolute) == []
    [problem] = problems(Sources(folder="/elsewhere", tables=[TableSource(path="terms.csv")]))
    assert problem.startswith("sources.tables[0]: there is no file or folder '/elsewhere/terms.csv'")


@pytest.mark.parametrize(
    ("path", "folder", "whole"),
    [
        ("s3://bucket/terms.csv", "/data", "s3://bucket/terms.csv"),
        ("terms.csv", "s3://bucket/data/", "s3://bucket/data/terms.csv"),
        ("terms.csv", "s3://bucket", "s3://bucket/terms.csv"),
        ("", "s3://bucket", ""),
    ],
)
def test_an_address_keeps_its_slashes(path, folder, whole):
    assert in_folder(path, folder) == whole
