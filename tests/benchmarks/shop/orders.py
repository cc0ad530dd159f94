"""What the view does, whatever serves it: choose, add up and describe a page of orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

__all__ = ["page"]

ORDERS = 500
PER_PAGE = 50
FIRST_DAY = datetime(2026, 1, 5, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Line:
    """One article of an order."""

    article: str
    quantity: int
    cents: int


@dataclass(frozen=True)
class Order:
    """What a row of a database would be."""

    number: int
    customer: str
    placed_at: datetime
    is_open: bool
    lines: tuple[Line, ...]

    @property
    def cents(self) -> int:
        """Give the sum of the lines."""
        return sum(line.quantity * line.cents for line in self.lines)


def _made(number: int, chance: Random) -> Order:
    return Order(
        number=10_000 + number,
        customer=f"customer-{chance.randrange(1_000)}@example.com",
        placed_at=FIRST_DAY + timedelta(minutes=37 * number),
        is_open=chance.random() < 0.5,
        lines=tuple(
            Line(
                f"SKU-{chance.randrange(10**6):06}", chance.randint(1, 5), chance.randint(99, 9_999)
            )
            for _ in range(3)
        ),
    )


_chance = Random(7)
_orders = [_made(number, _chance) for number in range(ORDERS)]


def page() -> dict[str, Any]:
    """Describe the largest open orders: 15 kB as JSON, and half a millisecond."""
    waiting = [order for order in _orders if order.is_open]
    largest = sorted(waiting, key=lambda order: order.cents, reverse=True)[:PER_PAGE]
    return {
        "orders": [_described(order) for order in largest],
        "total": sum(order.cents for order in largest) / 100,
        "waiting": len(waiting),
    }


def _described(order: Order) -> dict[str, Any]:
    return {
        "number": order.number,
        "customer": order.customer,
        "placed_at": order.placed_at.isoformat(),
        "total": order.cents / 100,
        "lines": [
            {"article": line.article, "quantity": line.quantity, "price": line.cents / 100}
            for line in order.lines
        ],
    }
