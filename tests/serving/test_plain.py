"""What a server says, without what a terminal would obey."""

import pytest

from flows.serving.causes import told, worth_showing
from flows.serving.plain import plain


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[1;32mgreen", "red and green"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://example.org\x1b\\link", "link"),
        ("\x1bctext", "text"),
        ("a\x00b\x08c\x7f\x9b1m\ud800d\u202ee\u2028f", "abc1mde f"),
        ("two\nlines\tand 무역, \u00a0é\r", "two\nlines\tand 무역,  é "),
        ("x" * 3000, "x" * 1999 + "…"),
    ],
)
def test_terminal_sequences_and_control_characters_are_left_out(said, kept):
    assert plain(said) == kept


def test_an_error_of_a_log_is_told_without_them():
    line = "\x1b[31mValueError: \x1b]0;owned\x07bad\x1b[0m"
    assert told([line]) == "ValueError: bad"
    assert worth_showing([line]) == ["ValueError: bad"]
