import json
import threading
import time

import pytest

from flows.errors import RunEndedError
from flows.store.attempts import SupersededError
from flows.store.bucket.client import Bucket, BucketError
from flows.store.bucket.lease import HeldLease, held, leased

NAME = "leases/finetune-a.json"


def nobody():
    pytest.fail("somebody holds the lease")


def test_only_one_of_many_has_it_at_a_time_and_each_gets_it(address):
    inside, most, numbers = [], [], []

    def work(number):
        with leased(Bucket(address), NAME, lambda: None, 30, 0.05) as lease:
            inside.append(number)
            most.append(len(inside))
            numbers.append(lease.number)
            time.sleep(0.1)
            lease.ask()
            inside.remove(number)

    workers = [threading.Thread(target=work, args=[number]) for number in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1] * 5
    assert numbers == [1, 2, 3, 4, 5], "every taker has a greater number"


def test_what_was_given_back_is_free_at_once(bucket):
    with leased(bucket, NAME, nobody):
        assert held(bucket, NAME)
    assert not held(bucket, NAME)
    with leased(bucket, NAME, nobody):
        pass


def test_who_waits_is_told_once_and_gets_it_when_the_holder_is_silent(bucket):
    dead = HeldLease(bucket, NAME, 1, 2.0)
    assert dead.write(None)
    told, started = [], time.monotonic()
    with leased(bucket, NAME, lambda: told.append(1), 30, 0.2) as lease:
        assert 2 <= time.monotonic() - started < 6
        assert (told, lease.number) == ([1], 2)
        assert not dead.write(dead._etag), "it cannot renew what another one has"
        with pytest.raises(SupersededError, match="another machine has taken it over"):
            dead.ask()
        lease.ask()


def test_who_waits_can_give_up(bucket):
    def give_up(seconds):
        raise RunEndedError

    def told():
        pass

    with leased(bucket, NAME, nobody), pytest.raises(RunEndedError), leased(bucket, NAME, told, pause=give_up):
        pytest.fail("it is held")
    with leased(bucket, NAME, lambda: pytest.fail("somebody holds it")):
        pass


def test_a_holder_that_renews_keeps_it_longer_than_its_length(bucket):
    with leased(bucket, NAME, nobody, 2.0) as lease:
        time.sleep(4)
        assert held(bucket, NAME)
        lease.check()
        assert json.loads(bucket.read(NAME).content)["beat"] > 3


def test_who_cannot_renew_knows_that_it_is_lost(bucket, monkeypatch):
    with leased(bucket, NAME, nobody, 2.0) as lease:

        def cut(*request):
            raise BucketError("The cable is out.")

        monkeypatch.setattr(bucket, "write_if", cut)
        time.sleep(2.6)
        with pytest.raises(SupersededError, match="not renewed for 2 s"):
            lease.check()


def test_an_object_that_is_no_lease_is_waited_for_like_one(bucket):
    bucket.write(NAME, b"{")
    assert held(bucket, NAME)
