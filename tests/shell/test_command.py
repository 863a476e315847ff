import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from pydantic import ValidationError

from flows.errors import DataError
from flows.progress import silent
from flows.shell.command import MOST_LINES, ShellConfig, run


def test_it_reads_the_stages_before_it_and_leaves_its_files(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "rows").write_text("a\nb\n")
    command = 'wc -l < "$INPUT_FIRST_ROWS/rows" > count; echo "$DATA"; test "$PWD" = "$OUTPUT"'
    config = ShellConfig(command=command, data_folder="/data")
    notes = []
    figures = run(config, {"first-rows": tmp_path / "made"}, tmp_path / "work", lambda *told: notes.append(told))
    assert figures == {"lines": 1}
    assert (tmp_path / "work" / "output" / "count").read_text().strip() == "2"
    assert notes == [(0, 1, "/data")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo one; false; echo two", "failed with exit code 1. Its last lines:\none"),
        ("false | true", "failed with exit code 1. It printed nothing."),
        ('echo "$NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE: unbound variable"),
        ("no-such-program", "no-such-program: command not found"),
        ("kill -9 $$", "was ended by signal 9"),
    ],
)
def test_a_command_that_fails_says_how(tmp_path, command, words):
    with pytest.raises(DataError) as error:
        run(ShellConfig(command=command), {}, tmp_path, silent)
    assert words in str(error.value)


def test_one_that_takes_too_long_is_ended_with_all_it_started(tmp_path):
    with pytest.raises(DataError, match="took longer than its 0.5 s. Its last lines:\nwaiting"):
        run(ShellConfig(command="echo waiting; sleep 987 & sleep 986", timeout_s=0.5), {}, tmp_path, silent)
    assert not _sleepers("987", "986")


def test_what_it_leaves_in_the_background_is_ended(tmp_path):
    run(ShellConfig(command="sleep 985 > /dev/null 2>&1 & echo done"), {}, tmp_path, silent)
    assert not _sleepers("985")


def test_a_daemon_is_ended_with_the_command_and_holds_nothing_up(tmp_path):
    daemon = "setsid bash -c 'sleep 984' & setsid --fork sleep 983; echo done"
    assert run(ShellConfig(command=daemon), {}, tmp_path, silent) == {"lines": 1}
    assert not _sleepers("984", "983")


def test_a_command_that_kills_its_group_ends_alone(tmp_path):
    with pytest.raises(DataError, match="was ended by signal 9. Its last lines:\none"):
        run(ShellConfig(command="echo one; sleep 982 & kill -9 0"), {}, tmp_path, silent)
    assert not _sleepers("982")


def test_its_variables_are_none_of_what_guards_it(tmp_path, monkeypatch):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "signal.py").write_text("raise SystemExit('not mine')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bad"))
    run(ShellConfig(command='test -f "$PYTHONPATH/signal.py"'), {}, tmp_path / "work", silent)


def test_a_line_without_end_is_cut_and_the_next_one_is_whole(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TOKEN", "secret-of-mine")
    command = 'echo "$TOKEN"; head -c 3000000 /dev/zero | tr "\\0" x; echo "$TOKEN"; echo next'
    assert run(ShellConfig(command=command, secrets=["TOKEN"]), {}, tmp_path, silent) == {"lines": 3}
    assert capfd.readouterr().out.splitlines() == ["***", "x" * 2000 + " ...", "next"]


def _sleepers(*seconds, count=0):
    """Those that are there; a moment later, if it is not so many."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[:1] == ["sleep"]]
        found = [p for p in found if p.info["cmdline"][1:] and p.info["cmdline"][1] in seconds]
        if len(found) == count:
            break
        time.sleep(0.05)
    return found


def test_secrets_stay_out_of_the_log(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HUB_TOKEN", "abc-secret")
    with pytest.raises(DataError) as error:
        run(ShellConfig(command="echo got $HUB_TOKEN; exit 3", secrets=["HUB_TOKEN"]), {}, tmp_path, silent)
    assert "got ***" in str(error.value)
    assert "abc-secret" not in capfd.readouterr().out + str(error.value)


PEM = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIGjOc1zZ5PhTCkBwhAgXXbPx
ZmFrZSBrZXkgZm9yIGEgdGVzdCBvZiBtYXNraW5nIQ==
-----END PRIVATE KEY-----
"""
JSON = '{\n  "type": "service_account",\n  "private_key": "of-nobody-else"\n}'
SLOWLY = 'printf %s "${KEY:0:40}"; sleep 0.2; printf %s "${KEY:40:7}"; sleep 0.2; printf %s "${KEY:47}"'


@pytest.mark.parametrize(
    ("value", "command"),
    [
        (PEM, 'echo "$KEY"'),
        (PEM, "echo $KEY"),  # bash makes one line of it
        (PEM, 'sed "s/^/> /" <<< "$KEY" >&2'),
        (PEM, SLOWLY),
        (PEM.replace("\n", "\r\n"), 'echo "$KEY"'),
        (JSON, 'echo "$KEY"'),
        ("a-token\n", SLOWLY),
    ],
    ids=[
        "as it is",
        "in one line",
        "indented",
        "in pieces",
        "of Windows",
        "JSON",
        "a token with a line end, in pieces",
    ],
)
def test_no_line_of_a_secret_is_in_the_log(tmp_path, monkeypatch, capfd, value, command):
    monkeypatch.setenv("KEY", value)
    told = []
    run(ShellConfig(command=command, secrets=["KEY"]), {}, tmp_path, lambda *report: told.append(report[2]))
    seen = capfd.readouterr().out
    assert "***" in seen
    for line in [line.strip() for line in value.splitlines() if len(line.strip()) > 1]:
        assert line not in seen
        assert not [words for words in told if line in words]


def test_short_lines_of_a_secret_leave_other_output_readable(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("KEY", JSON)
    run(ShellConfig(command="echo '{\"rows\": 3}'", secrets=["KEY"]), {}, tmp_path, silent)
    assert capfd.readouterr().out == '{"rows": 3}\n'


def test_texts_of_a_secret_that_is_json_and_quotes_as_bash_shows_them_are_hidden(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ACCOUNT", '{"user": "admin", "keys": ["jsonPASSword99"]}')
    monkeypatch.setenv("WORD", "it's a secret word")
    config = ShellConfig(command='echo jsonPASSword99 of admin; set -x; : "$WORD"', secrets=["ACCOUNT", "WORD"])
    run(config, {}, tmp_path, silent)
    assert capfd.readouterr().out.splitlines() == ["*** of admin", "+ : '***'"]


def test_a_secret_that_begins_another_leaves_nothing_of_that(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SHORT", "abc-secret")
    monkeypatch.setenv("LONG", "abc-secret-and-more")
    run(ShellConfig(command="echo $LONG $SHORT", secrets=["SHORT", "LONG"]), {}, tmp_path, silent)
    assert capfd.readouterr().out == "*** ***\n"


def test_an_empty_command_is_refused():
    with pytest.raises(ValidationError):
        ShellConfig(command="")


def test_the_environment_is_that_of_its_process(tmp_path, monkeypatch):
    monkeypatch.setenv("A_NAME", "value")
    run(ShellConfig(command="echo $A_NAME > seen"), {}, tmp_path, silent)
    assert (tmp_path / "output" / "seen").read_text() == "value\n"
    assert "OUTPUT" not in os.environ


def test_it_ends_with_a_stage_that_is_killed_and_all_it_started(tmp_path):
    code = (
        "from pathlib import Path; from flows.progress import silent; from flows.shell.command import ShellConfig, run;"
        f"run(ShellConfig(command='sleep 984 & echo; sleep 983; true'), {{}}, Path({str(tmp_path)!r}), silent)"
    )
    stage = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    stage.stdout.readline()
    assert len(_sleepers("984", "983", count=2)) == 2
    os.killpg(stage.pid, signal.SIGKILL)
    stage.wait()
    stage.stdout.close()
    assert not _sleepers("984", "983")


@pytest.mark.parametrize("extra", [0, 1, 20, 21, 3000])
def test_of_many_lines_the_first_and_the_last_are_passed_on(tmp_path, capsys, extra):
    count = MOST_LINES + extra
    assert run(ShellConfig(command=f"seq {count}"), {}, tmp_path, silent) == {"lines": count}
    printed = capsys.readouterr().out.splitlines()
    said = [f"... {extra - 20:,} lines are left out here: send so many into a file in $OUTPUT."] if extra > 20 else []
    last = [str(n) for n in range(count - min(extra, 20) + 1, count + 1)]
    assert printed == [*(str(n) for n in range(1, MOST_LINES + 1)), *said, *last]
