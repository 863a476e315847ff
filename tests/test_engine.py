"""The process of a flow run; with a real worker and server in `end_to_end/test_local_pool.py`."""

import logging
import os
import subprocess
import sys

from prefect.exceptions import FailedRun

from flows import engine

CODE = """
import os, sys
from flows import engine
sys.stdout, sys.stderr = engine._outliving(sys.stdout), engine._outliving(sys.stderr)
sys.stdin.readline()  # by now nobody reads any more
for number in range(1000):
    print("line", number)
    print("line", number, file=sys.stderr)
os.write(1, b"from below")
open(sys.argv[1], "w").write("done")
"""


def test_what_is_printed_arrives(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "end")], input="\n", capture_output=True, text=True
    )
    assert ended.stdout.splitlines() == [*(f"line {number}" for number in range(1000)), "from below"]
    assert len(ended.stderr.splitlines()) == 1000


def test_it_goes_on_when_nobody_reads_what_it_prints(tmp_path):
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "end")], stdin=subprocess.PIPE, stdout=writing, stderr=writing
    )
    os.close(writing)
    os.close(reading)
    process.communicate(b"\n", timeout=60)
    assert (process.returncode, (tmp_path / "end").read_text()) == (0, "done")


def test_a_failed_run_ends_with_its_cause_and_a_real_error_with_its_traceback():
    def record(error, words="Engine execution exited with unexpected exception"):
        return logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, words, (), (type(error), error, None))

    assert not engine._tells_more(record(FailedRun("the sources are empty")))
    assert engine._tells_more(record(FailedRun("the sources are empty"), "something else"))
    assert engine._tells_more(record(ValueError("of ours")))
    assert engine._tells_more(logging.LogRecord("prefect.flow_runs", logging.INFO, "", 0, "words", (), None))
