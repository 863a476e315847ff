import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flows.ending import to_the_end


class Told(BaseException):
    """What a SIGTERM raises here, as in Prefect's engine."""


@pytest.fixture
def raising():
    def handler(number, frame):
        raise Told

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def cleaned(done):
    with to_the_end():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("cleaned")


def test_a_second_signal_does_not_cut_short_what_the_first_has_begun(raising):
    done = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            cleaned(done)

    with pytest.raises(Told):
        work()
    assert done == ["cleaned"]


def test_one_that_comes_meanwhile_is_heard_afterwards(raising):
    done = []
    with pytest.raises(Told):
        cleaned(done)
    assert done == ["cleaned"]


def test_without_a_handler_it_ends_the_process_afterwards():
    code = "import os, signal\nfrom flows.ending import to_the_end\n"
    code += "with to_the_end():\n  os.kill(os.getpid(), signal.SIGTERM)\n  print('cleaned', flush=True)\nprint('on')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "cleaned\n")


def test_other_threads_do_as_ever():
    done = []

    def work():
        with to_the_end():
            done.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [before]


LOST = """
import signal, sys, time, weakref
from flows.ending import hear_again

class Told(BaseException): pass
class Thing: pass

def handler(number, frame):
    raise Told

signal.signal(signal.SIGTERM, handler)
if sys.argv[1] == "again":
    hear_again(Told)
thing = Thing()
reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
try:
    del thing
    time.sleep(2)
    print("lost")
except Told:
    print("heard")
reference = weakref.ref(Thing(), lambda _: 1 / 0)
"""


@pytest.mark.parametrize(("how", "what"), [("again", "heard"), ("once", "lost")])
def test_a_signal_that_was_lost_in_a_callback_is_heard_again(how, what):
    ended = subprocess.run([sys.executable, "-c", LOST, how], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, f"{what}\n")
    assert "ZeroDivisionError" in ended.stderr
