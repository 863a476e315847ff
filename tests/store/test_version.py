import json

import pytest

from flows.errors import ConfigError
from flows.store import version
from flows.store.layout import Store


def test_a_new_store_says_its_layout_and_is_then_only_looked_at(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.check()
    file = tmp_path / "store" / "store.json"
    assert json.loads(file.read_text()) == {"layout": version.LAYOUT}
    before = file.stat().st_mtime_ns
    store.check()
    assert file.stat().st_mtime_ns == before


def test_a_store_of_the_first_layout_is_adopted_with_all_that_is_in_it(tmp_path):
    (tmp_path / "artifacts" / "model" / "x").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    Store(str(tmp_path)).check()
    assert json.loads((tmp_path / "store.json").read_text()) == {"layout": version.LAYOUT}
    assert (tmp_path / "artifacts" / "model" / "x").is_dir()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"layout": 99}',
            "run.store: .* has layout 99, and this version of the project knows 2 at most.* choose another",
        ),
        ('{"layout": "two"}', "no layout that is known here.*delete that file"),
        ("{", "no layout that is known here"),
        ("[]", "no layout that is known here"),
    ],
)
def test_a_newer_or_unknown_layout_is_refused_with_the_way_out(tmp_path, content, words):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        Store(str(tmp_path), "run.store").check()
    assert (tmp_path / "store.json").read_text() == content
