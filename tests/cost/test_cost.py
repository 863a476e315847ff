import pytest

from flows.cost.cost import Cost, total
from flows.cost.prices import Prices, priced


def test_a_sum_is_unknown_where_a_part_is_but_no_tokens_are_no_part():
    known = Cost(seconds=60, gpu_hours=0.5, energy_kwh=0.25, energy_of=["CPUs"], tokens=10, flops=5.0)
    other = Cost(seconds=30, energy_kwh=0.5, energy_of=["cards"], attempts=2)
    both = total([known, other])
    assert (both.seconds, both.gpu_hours, both.energy_kwh, both.attempts) == (90, 0.5, 0.75, 3)
    assert (both.energy_of, both.tokens, both.flops) == (["cards", "CPUs"], 10, 5.0)
    assert total([known, Cost(seconds=1)]).energy_kwh is None


def test_nothing_done_has_cost_nothing():
    nothing = total([])
    assert (nothing.seconds, nothing.energy_kwh, nothing.attempts) == (0, 0, 0)
    assert priced(nothing, Prices(price_per_kwh=1)).money == 0


def test_money_is_of_hours_cards_and_energy():
    prices = Prices(price_per_hour=2, price_per_gpu_hour=3, price_per_kwh=0.5)
    cost = Cost(seconds=1800, gpu_hours=4, energy_kwh=2)
    assert priced(cost, prices).money == pytest.approx(1 + 12 + 1)


def test_without_a_price_or_with_unknown_energy_that_has_one_money_is_unknown():
    assert priced(Cost(seconds=3600, money=7), Prices()).money is None
    assert priced(Cost(seconds=3600), Prices(price_per_hour=1, price_per_kwh=1)).money is None
