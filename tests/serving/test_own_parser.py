"""Further flags are tried on the servers' own parsers; of those that are not at hand, on stand-ins that parse alike."""

import json
import stat
import sys
from pathlib import Path

import pytest

from flows.serving.config import ServeConfig
from flows.serving.start import problems
from flows.serving.variants import own_parser

# As SGLang's main module: reads its words by argparse, then loads the model.
SGLANG = """
import argparse
parser = argparse.ArgumentParser(prog="launch_server.py")
parser.add_argument("--model-path", required=True)
parser.add_argument("--dtype", choices=["auto", "float16"])
parser.add_argument("--tp-size", type=int)
parser.parse_args()
open(__file__ + ".loaded", "w")
"""
# As llama-server (common/arg.cpp): a word after another, --version ends it.
LLAMA = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    --version) echo "version: 6000" >&2; exit 0;;
    --mlock) ;;
    --ctx-size) shift
      case "$1" in *[!0-9]*) echo 'error while handling argument "--ctx-size": stoi' >&2; exit 1;; esac;;
    *) echo "error: invalid argument: $1" >&2; exit 1;;
  esac
  shift
done
touch "$0.loaded"
"""


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def told(variant, **options):
    section = variant.replace("-", "_")
    return problems(ServeConfig.model_validate({"variant": variant, section: options}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compile", "--log-level", "info"], ""),
        (["--no-such-flag"], "No such option '--no-such-flag'."),
        (["--default-seed", "seven"], "Invalid value for '--default-seed': 'seven' is not a valid integer."),
        (["--reasoning"], "Option '--reasoning' requires an argument."),
        (["more"], "Got unexpected extra argument (more)."),
    ],
)
def test_transformers_takes_them_or_says_why_not(flags, message):
    expected = [f"serve.transformers.extra_flags: the server does not take them: {message}"] if message else []
    assert told("transformers", extra_flags=flags) == expected


@pytest.fixture
def sglang(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(SGLANG)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    yield {"python": sys.executable}
    assert not (package / "launch_server.py.loaded").exists(), "it was stopped before it loaded the model"


def test_a_python_server_is_stopped_when_it_has_read_its_words(sglang, monkeypatch):
    assert told("sglang", **sglang, dtype="float16", extra_flags=["--tp-size", "2"]) == []
    assert told("sglang", **sglang, extra_flags=["--tp-size", "two"]) == [
        "serve.sglang.extra_flags: the server does not take them: argument --tp-size: invalid int value: 'two'."
    ]
    monkeypatch.setenv("SGLANG_EXTRA_ARGS", "--no-such 'a b'")
    assert told("sglang", **sglang) == [
        "SGLANG_EXTRA_ARGS: the server does not take them: unrecognized arguments: --no-such a b."
    ]
    monkeypatch.setenv("SGLANG_EXTRA_ARGS", "--no-such 'a b")
    assert told("sglang", **sglang) == ["SGLANG_EXTRA_ARGS: No closing quotation. Close the quotation: --no-such 'a b"]


def test_an_environment_without_the_server_is_told(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (problem,) = told("sglang", python=sys.executable, extra_flags=["--tp-size", "2"])
    assert "No module named 'sglang'" in problem


def test_llama_cpp_reads_them_up_to_its_version(tmp_path):
    program = tmp_path / "llama-server"
    program.write_text(LLAMA)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    where = "serve.llama_cpp.extra_flags: the server does not take them: "
    assert told("llama-cpp", program=str(program), extra_flags=["--mlock", "--ctx-size", "9"]) == []
    assert told("llama-cpp", program=str(program), extra_flags=["--mlok"]) == [f"{where}invalid argument: --mlok."]
    (problem,) = told("llama-cpp", program=str(program), extra_flags=["--ctx-size", "many"])
    assert problem == f'{where}error while handling argument "--ctx-size": stoi.'
    assert not Path(f"{program}.loaded").exists()


def test_the_same_words_are_tried_once_until_the_server_changes(tmp_path):
    program = tmp_path / "bin" / "server"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho >> "$0.asked"\necho "error: invalid argument: $1" >&2\nexit 1\n')
    program.chmod(0o755)

    def ask(word="--a"):
        return own_parser.refused("serve.x", [str(program), word], {})

    assert ask() == ask() == ["serve.x: the server does not take them: invalid argument: --a."]
    assert len(Path(f"{program}.asked").read_text()) == 1
    assert ask("--b") != ask()
    program.write_text("#!/bin/sh\nexit 0\n")
    assert ask() == []
    for file in (tmp_path / "cache").rglob("*.json"):
        assert isinstance(json.loads(file.read_text()), str)


@pytest.mark.parametrize(
    "script", ["echo something else >&2; exit 1", "sleep 600", "kill -9 $$"], ids=["other words", "hangs", "killed"]
)
def test_what_nobody_can_tell_is_left_to_the_start(tmp_path, monkeypatch, script):
    program = tmp_path / "server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(own_parser, "TIMEOUT_S", 0.2)
    assert own_parser.refused("serve.x", [str(program)], {}) == []
    assert own_parser.refused("serve.x", ["/no/such/program"], {}) == []
    assert not (tmp_path / "cache").exists()


def test_secrets_are_not_handed_on(tmp_path, monkeypatch):
    names = ("HF_TOKEN", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_URL")
    for name in names:
        monkeypatch.setenv(name, "secret")
    program = tmp_path / "server"
    words = "".join(f"${name}" for name in names)
    program.write_text(f'#!/bin/sh\necho "error: {words} $OTHER" >&2\nexit 1\n')
    program.chmod(0o755)
    assert own_parser.refused("x", [str(program)], {"OTHER": "word"}) == ["x: the server does not take them:  word."]
