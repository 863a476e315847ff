"""The file of answers: whatever was kept is read back, however it was cut off."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flows.endpoint_client.kept import Kept
from flows.endpoint_client.request import Completion

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["\n", "\r\n", "\u2028", "\x85"]
)
COMPLETIONS = st.builds(
    Completion,
    id=TEXT,
    text=TEXT,
    tokens=st.none() | st.integers(0, 10),
    truncated=st.booleans(),
    seconds=st.floats(0, 1e6),
    error=TEXT,
)
ANSWERS = st.lists(st.tuples(TEXT, COMPLETIONS), max_size=8)


@given(ANSWERS, ANSWERS, st.data())
def test_what_a_kill_left_is_the_whole_lines_and_later_ones_follow_them(first, second, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.jsonl"
        ends, state = [0], [{}]
        with Kept(path) as kept:
            for key, completion in first:
                kept.keep(key, completion)
                ends.append(path.stat().st_size)
                state.append(dict(kept.completions))
        cut = data.draw(st.integers(0, ends[-1]))
        path.write_bytes(path.read_bytes()[:cut])
        whole = max(number for number, end in enumerate(ends) if end <= cut)
        with Kept(path) as kept:
            assert kept.completions == state[whole]
            for key, completion in second:
                kept.keep(key, completion)
        with Kept(path) as kept:
            assert kept.completions == state[whole] | dict(second)


@given(st.binary(max_size=200))
def test_a_file_of_anything_is_no_answer_and_no_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.jsonl"
        path.write_bytes(
            content + b'\n{"key": "k", "id": "a"}\n["key", {"id": "a"}]\n7\n{"id": "a"}\n{"key": "n", "x": 1}\n'
        )
        with Kept(path) as kept:
            assert kept.completions == {"k": Completion(id="a")}


def test_without_a_file_answers_are_in_memory():
    with Kept(None) as kept:
        kept.keep("k", Completion(id="a"))
        assert kept.completions == {"k": Completion(id="a")}
