import ast

from hypothesis import given
from hypothesis import strategies as st

from flows.store.digest import code_digest, folder_digest, value_digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_key_order_does_not_count(value):
    assert value_digest(value) == value_digest(dict(reversed(value.items())))


@given(st.dictionaries(st.text(), st.integers(), max_size=4), st.text(), st.integers())
def test_another_value_is_another_digest(value, key, number):
    assert (value_digest(value) == value_digest({**value, key: number})) == (value.get(key) == number)


def test_comments_and_docstrings_are_not_code(tmp_path):
    file = tmp_path / "a.py"
    file.write_text('def f():\n    """Old."""\n    return 1\n')
    before = code_digest(tmp_path)
    file.write_text('# why\ndef f():\n    """New words."""\n\n    return 1\n')
    assert code_digest(tmp_path) == before
    file.write_text("def f():\n    return 2\n")
    other = code_digest(tmp_path)
    file.write_text('a = Field(default=1, title="A", description="One.")\n')
    one = code_digest(tmp_path)
    file.write_text('a = Field(default=1, title="B", description="Two.")\n')
    assert code_digest(tmp_path) == one != other
    file.write_text("def f():\n    return 2\n")
    assert code_digest(tmp_path) != before


def test_a_folder_digest_sees_names_and_content_but_not_times(tmp_path):
    (tmp_path / "a").write_text("1")
    before = folder_digest(tmp_path)
    (tmp_path / "a").touch()
    assert folder_digest(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder_digest(tmp_path) != before


def test_a_tree_that_another_thread_has_disturbed_is_built_again(tmp_path, monkeypatch):
    file = tmp_path / "a.py"
    file.write_text("def f():\n    return 'of this test alone'\n")
    parse, tries = ast.parse, []

    def disturbed(code):
        tries.append(code)
        if len(tries) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=57, after=75)")
        return parse(code)

    monkeypatch.setattr(ast, "parse", disturbed)
    found = code_digest(tmp_path)
    assert len(tries) == 3
    file.write_text("def f():\n    return 'other'\n")
    assert code_digest(tmp_path) != found
