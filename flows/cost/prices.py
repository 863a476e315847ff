"""What an hour, a GPU-hour and a kilowatt-hour cost, and money from them."""

from __future__ import annotations

from pydantic import Field

from flows.config import Config
from flows.cost.cost import Cost


class Prices(Config):
    """Prices, from which the report makes money of time, cards and energy; without any it names none."""

    price_per_gpu_hour: float = Field(
        default=0, ge=0, title="Price of a GPU-hour", description="Of one card for an hour; 0: not counted."
    )
    price_per_hour: float = Field(
        default=0,
        ge=0,
        title="Price of an hour",
        description="Of a machine, for each hour that a stage works; stages side by side count each. 0: not counted.",
    )
    price_per_kwh: float = Field(
        default=0,
        ge=0,
        title="Price of a kWh",
        description="Of the energy measured; where none is, the cost is unknown. 0: not counted.",
    )
    currency: str = Field(default="EUR", min_length=1, max_length=8, title="Currency", description="Of the prices.")

    @property
    def given(self) -> bool:
        """Whether there is any price."""
        return bool(self.price_per_gpu_hour or self.price_per_hour or self.price_per_kwh)


def priced(cost: Cost, prices: Prices) -> Cost:
    """The cost with its money; None without a price, or if energy has a price and is unknown."""
    if not prices.given or (prices.price_per_kwh and cost.energy_kwh is None):
        return cost.model_copy(update={"money": None})
    return cost.model_copy(update={"money": least(cost, prices)})


def least(cost: Cost, prices: Prices) -> float:
    """Money for what is known of it, for a budget: unknown energy counts nothing."""
    energy = (cost.energy_kwh or 0.0) * prices.price_per_kwh
    return cost.gpu_hours * prices.price_per_gpu_hour + cost.seconds / 3600 * prices.price_per_hour + energy
