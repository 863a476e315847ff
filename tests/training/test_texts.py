from hypothesis import given
from hypothesis import strategies as st

from flows.training.texts import cut_text


def words(text):
    return len(text.split())


@given(st.text(), st.integers(1, 40))
def test_pieces_hold_the_whole_text_and_fit(text, most):
    pieces = cut_text(text, most, len)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= most for piece in pieces)
    assert all(pieces)


def test_cuts_come_at_sentence_ends():
    assert cut_text("One two. Three four. Five six.", 4, words) == ["One two. Three four.", "Five six."]


def test_a_long_sentence_is_cut_between_words():
    assert cut_text("a b c d e f", 3, words) == ["a b c", "d e f"]
