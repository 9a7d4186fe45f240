"""What every section of a plan is made of."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer


def _to_decimal(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if not isinstance(value, str):
        return value
    try:
        return Decimal(value)
    except InvalidOperation as err:
        raise ValueError("expected a decimal number, such as 0.002") from err


def _decimal_text(value: Decimal) -> str:
    text = format(value.normalize(), "f")
    return "0" if text in {"-0", "0"} else text


Number = Annotated[
    Decimal,
    BeforeValidator(_to_decimal),
    PlainSerializer(_decimal_text, return_type=str),
    Field(allow_inf_nan=False, max_digits=28),  # what `normalize` keeps: more digits would be rounded on their way out
]
"""A number that everybody computes with: exact decimal text in statements."""


class PlanSection(BaseModel):
    """Base of every part of a plan: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
