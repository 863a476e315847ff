"""What a run may cost, and whether it has."""

from __future__ import annotations

from pydantic import Field

from flows.config import Config
from flows.cost.cost import Cost
from flows.cost.energy import measurable
from flows.cost.prices import Prices, least


class Budget(Config):
    """What a run may cost. At its end training stops with a checkpoint; a run with a greater one goes on from there."""

    max_hours: float = Field(
        default=0,
        ge=0,
        title="Most hours of work",
        description="Of all stages, those side by side added up; waiting does not count. 0: no limit.",
    )
    max_cost: float = Field(
        default=0,
        ge=0,
        title="Most money",
        description="In the currency of the prices, which must be given under Cost. 0: no limit.",
    )


def problems(budget: Budget, prices: Prices) -> list[str]:
    """What makes the budget meaningless, a line each."""
    if not budget.max_cost:
        return []
    if not prices.given:
        return [
            "budget.max_cost: without a price nothing costs anything. Give cost.price_per_gpu_hour, "
            "cost.price_per_hour or cost.price_per_kwh."
        ]
    only_energy = not prices.price_per_gpu_hour and not prices.price_per_hour
    if only_energy and not measurable():
        return [
            "budget.max_cost: only energy has a price (cost.price_per_kwh), and this machine does not measure it. Give "
            "cost.price_per_hour or cost.price_per_gpu_hour too."
        ]
    return []


def used_up(budget: Budget, prices: Prices, cost: Cost) -> str:
    """Why the run must end, in words: what it has used and what it may. Empty: it may go on."""
    hours, money = cost.seconds / 3600, least(cost, prices)
    if budget.max_hours and hours >= budget.max_hours:
        used = f"{_hours(hours)} of work used, {_hours(budget.max_hours)} allowed (budget.max_hours)"
    elif budget.max_cost and money >= budget.max_cost:
        currency = prices.currency
        used = f"{_money(money)} {currency} used, {_money(budget.max_cost)} {currency} allowed (budget.max_cost)"
    else:
        return ""
    return f"The budget of this run is used up: {used}."


def _money(amount: float) -> str:
    """An amount with as many digits as tell something."""
    return f"{amount:,.2f}" if amount >= 0.1 else f"{amount:.3g}"


def _hours(hours: float) -> str:
    """Hours with as many digits as tell something; seconds where they are few."""
    return f"{hours:.3g} h" if hours >= 0.1 else f"{3600 * hours:.3g} s"
