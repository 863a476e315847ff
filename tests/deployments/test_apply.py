"""`make deploy` where nothing can be deployed; the rest is in tests/end_to_end/test_automations.py."""

import subprocess
import sys

from deployments.local import CHECKOUT, Local


def apply(tmp_path, **environment):
    own = Local(tmp_path).environment(1) | environment
    command = [sys.executable, "-m", "deployments.apply"]
    done = subprocess.run(command, cwd=CHECKOUT, env=own, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_without_a_server_it_says_which_variable_names_one(tmp_path):
    code, said = apply(tmp_path, PREFECT_API_URL="")
    assert code == 1
    assert said.startswith("PREFECT_API_URL is not set, so it is not known where to deploy to.")
    assert "Traceback" not in said


def test_a_server_that_is_not_there_is_named(tmp_path):
    code, said = apply(tmp_path)
    assert code == 1
    assert "The Prefect server at http://127.0.0.1:1/api does not answer as one: " in said
    assert "Traceback" not in said
