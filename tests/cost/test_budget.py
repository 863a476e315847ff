import pytest

from flows.cost import budget
from flows.cost.budget import Budget, problems, used_up
from flows.cost.cost import Cost
from flows.cost.prices import Prices


@pytest.mark.parametrize(
    ("limit", "prices", "cost", "words"),
    [
        (Budget(max_hours=2), Prices(), Cost(seconds=7200), "2 h of work used, 2 h allowed (budget.max_hours)"),
        (Budget(max_hours=0.001), Prices(), Cost(seconds=4), "4 s of work used, 3.6 s allowed (budget.max_hours)"),
        (
            Budget(max_cost=5),
            Prices(price_per_gpu_hour=2.5, currency="USD"),
            Cost(seconds=60, gpu_hours=2.1),
            "5.25 USD used, 5.00 USD allowed (budget.max_cost)",
        ),
        (
            Budget(max_cost=0.002),
            Prices(price_per_hour=3.6, currency="EUR"),
            Cost(seconds=4),
            "0.004 EUR used, 0.002 EUR allowed (budget.max_cost)",
        ),
    ],
)
def test_a_budget_that_is_used_up_says_what_was_used_and_allowed(limit, prices, cost, words):
    assert used_up(limit, prices, cost) == f"The budget of this run is used up: {words}."
    assert used_up(Budget(), prices, cost) == ""
    assert used_up(limit, prices, Cost(seconds=1)) == ""


def test_unknown_energy_counts_nothing_of_a_budget():
    prices = Prices(price_per_hour=1, price_per_kwh=1)
    assert used_up(Budget(max_cost=2), prices, Cost(seconds=3600)) == ""
    assert used_up(Budget(max_cost=2), prices, Cost(seconds=3600, energy_kwh=1)) != ""


def test_money_without_a_price_is_refused_naming_the_field(monkeypatch):
    [line] = problems(Budget(max_cost=5), Prices())
    assert line.startswith("budget.max_cost: without a price")
    assert problems(Budget(max_hours=5), Prices()) == []
    assert problems(Budget(max_cost=5), Prices(price_per_hour=1)) == []
    monkeypatch.setattr(budget, "measurable", lambda: False)
    [line] = problems(Budget(max_cost=5), Prices(price_per_kwh=1))
    assert line.startswith("budget.max_cost: only energy has a price (cost.price_per_kwh)")
    monkeypatch.setattr(budget, "measurable", lambda: True)
    assert problems(Budget(max_cost=5), Prices(price_per_kwh=1)) == []
