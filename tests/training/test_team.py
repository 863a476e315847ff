import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import ConfigError
from flows.training.team import share


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 16))
def test_all_processes_together_see_the_sequences_of_one(batch, accumulation, processes):
    if batch * accumulation % processes:
        with pytest.raises(ConfigError, match=f"{processes} processes cannot share"):
            share(batch, accumulation, processes)
        return
    own_batch, own_accumulation = share(batch, accumulation, processes)
    assert own_batch * own_accumulation * processes == batch * accumulation
    assert own_batch <= batch


def test_one_process_has_what_was_asked_for():
    assert share(8, 4, 1) == (8, 4)


def test_the_batch_is_shared_before_the_accumulation_is():
    assert share(8, 4, 2) == (8, 2)
    assert share(8, 1, 2) == (4, 1)
