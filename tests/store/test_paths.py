"""Folders as people write them, those that can be none among them."""

from pathlib import Path

import pytest

from flows.errors import ConfigError
from flows.store.layout import ENVIRONMENT_VARIABLE, Store
from flows.store.paths import folder


def test_a_folder_need_not_be_there_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert folder("~/link/new", "store") == tmp_path / "there" / "new"
    assert Store("~/new").endpoints == tmp_path / "new" / "endpoints"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("/etc/passwd", "is no folder"),
        ("/etc/passwd/store", "there is something on the way that is no folder"),
        ("~nobody-of-this-name/x", "Could not determine home directory"),
        ("/tmp/a\0b", "embedded null byte"),
        ("/tmp/" + "x" * 300, "File name too long"),
        ("{here}/circle/x", "Symlink loop"),
    ],
)
def test_what_can_be_no_folder_is_told_in_words(tmp_path, monkeypatch, given, why):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    given = given.replace("{here}", str(tmp_path))
    with pytest.raises(ConfigError, match=f"^model: .*{why}"):
        folder(Path(given), "model")
    with pytest.raises(ConfigError, match=f"^store: .*{why}"):
        Store(given)
    if "\0" not in given:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, given)
        with pytest.raises(ConfigError, match=f"^{ENVIRONMENT_VARIABLE}: .*{why}"):
            Store()
