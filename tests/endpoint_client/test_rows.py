"""Files of questions: every format gives the same requests, and what is none is named before anything is asked."""

import json

import pandas as pd
import pytest

from flows.endpoint_client.request import Completion
from flows.endpoint_client.rows import read_requests, write_replies
from flows.errors import DataError

KINDS = ["csv", "tsv", "jsonl", "parquet"]


@pytest.fixture
def table(tmp_path):
    """Write rows to a file of that kind, as people do."""

    def _table(kind, rows):
        data, path = pd.DataFrame(rows), tmp_path / f"q.{kind}"
        if kind == "parquet":
            data.to_parquet(path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            data.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
        return path

    return _table


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_asked_as_training_asks_them(table, kind):
    rows = [
        {"question": "What, exactly?", "instruction": "Answer.", "more": 1},
        {"question": "왜?\nSo?", "instruction": "", "more": 2},
    ]
    found = read_requests(str(table(kind, rows)), "rows")
    assert [request.messages for request in found] == [
        [{"role": "user", "content": "Answer.\nWhat, exactly?"}],
        [{"role": "user", "content": "왜?\nSo?"}],
    ]
    lines = {"csv": [2, 4], "tsv": [2, 4]}.get(kind, [1, 2])
    assert [request.id for request in found] == [f"q.{kind}:{line}" for line in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_are_passed_on(table, kind):
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}]
    cell = json.dumps(messages) if kind in ("csv", "tsv") else messages
    [request] = read_requests(str(table(kind, [{"messages": cell, "id": 7}])), "rows")
    assert (request.id, request.messages) == ("7", messages)


def test_a_prompt_is_for_servers_without_chat_and_a_folder_has_several_files(tmp_path):
    (tmp_path / "a.csv").write_text("prompt\ngo on\n")
    (tmp_path / "b.jsonl").write_text('{"question": "Why?"}\n\n{"question": "How?"}\n')
    found = read_requests(str(tmp_path), "rows")
    assert [(request.id, request.prompt) for request in found] == [
        ("a.csv:2", "go on"),
        ("b.jsonl:1", ""),
        ("b.jsonl:3", ""),
    ]


def test_every_bad_row_is_named_by_file_line_and_field(tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [
        {"question": "Why?"},
        {"question": ""},
        {"question": "a", "messages": [{"role": "user", "content": "b"}]},
        {"messages": [{"role": "judge", "content": "b"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": "nonsense"},
        {"question": ["a"]},
        {"text": "a"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{torn\n[1]\n")
    with pytest.raises(DataError) as bad:
        read_requests(str(path), "rows")
    lines = str(bad.value).splitlines()
    one_of = "give exactly one of messages, question and prompt; there is"
    assert lines[:2] == [f"{path}, line 2: {one_of} None", f"{path}, line 3: {one_of} messages and question"]
    assert lines[2].startswith(f"{path}, line 4: messages.0.role: Input should be 'system'")
    assert lines[3].startswith(f"{path}, line 5: messages.0.content: ")
    assert lines[4].startswith(f"{path}, line 6: messages: not JSON (")
    assert lines[5].startswith(f"{path}, line 7: question: ")
    assert lines[6] == f"{path}, line 8: {one_of} None"
    assert lines[7].startswith(f"{path}, line 9: not-json: ")
    assert lines[8].startswith(f"{path}, line 10: not-an-object: ")
    assert len(lines) == 9


def test_of_a_thousand_bad_rows_the_first_are_shown_and_all_are_counted(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("question\n" + '""\n' * 1000)
    with pytest.raises(DataError, match=r"line 2: .*\n(.*\n){19}and 980 more$"):
        read_requests(str(path), "rows")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.csv", "frage\nWas?\n", r"q\.csv: no column messages, question or prompt\. There are: frage"),
        ("q.csv", "question\n", "rows: there is no row in"),
        ("q.csv", "question\na,b\n", r"line 2: too-many-cells"),
        ("q.jsonl", "", "rows: there is no row in"),
        ("q.txt", "Why?", r"rows: .*q\.txt: a table is a \.csv"),
        ("q.parquet", "nonsense", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_requests(str(tmp_path / name), "rows")


def test_a_file_in_another_encoding_or_nowhere_is_named(tmp_path):
    (tmp_path / "q.csv").write_bytes("question\n왜?\n".encode("cp949"))
    with pytest.raises(DataError, match="the text is not UTF-8; it looks like CP949"):
        read_requests(str(tmp_path / "q.csv"), "rows")
    with pytest.raises(DataError, match="rows: there is no file or folder 'nowhere'"):
        read_requests("nowhere", "rows")


def test_replies_stand_beside_what_was_asked_in_order(tmp_path):
    (tmp_path / "q.csv").write_text("id,question\na,Why?\nb,왜?\n")
    requests = read_requests(str(tmp_path / "q.csv"), "rows")
    completions = [Completion(id="a", text="So.", tokens=2), Completion(id="b", error="is overloaded")]
    path = tmp_path / "out" / "replies.jsonl"
    write_replies(path, requests, completions)
    first, second = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert first == {
        "id": "a",
        "messages": [{"role": "user", "content": "Why?"}],
        "reply": "So.",
        "tokens": 2,
        "prompt_tokens": None,
        "truncated": False,
        "seconds": 0.0,
        "error": "",
    }
    assert (second["id"], second["reply"], second["error"]) == ("b", "", "is overloaded")
    assert "왜?" in path.read_text("utf-8")
