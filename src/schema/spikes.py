"""Unusual days of usage, as their alerts tell of them."""

from datetime import date
from typing import Self

import strawberry

from .. import models
from .enums import SpikeCauseKind
from .fields import said
from .scalars import BigInt


@strawberry.type(
    description="A part of a day's usage that grew against what it usually is, by much of the whole growth."
)
class SpikeCause:
    """A cause."""

    kind: SpikeCauseKind = said("What it is a part by.")
    name: str = said("The workspace, the sender as api_key:ID or operator:ID, or the property as key=value.")
    quantity: BigInt = said("What it has of the day, as far as the day had gone. Of large days some events count only.")
    usual: BigInt = said("Its median over days of the same weekday before; 0 where it is new.")


@strawberry.type(description="A day whose usage lies far above what its weekday usually has.")
class Spike:
    """An unusual day."""

    day: date = said("The day in the account's zone.")
    expected: BigInt = said("The median of the same weekday over the last twelve weeks.")
    quantity: BigInt = said("What was used of the day when it was noticed; more may have come since.")
    causes: list[SpikeCause] = said(
        "What grew most against usual days: up to three workspaces, senders and properties, in this order and each the "
        "largest growth first. Empty where nothing stands out."
    )

    @classmethod
    def of(cls, row: models.Alert) -> Self:
        """The day that an alert of this kind tells of."""
        return cls(
            day=date.fromisoformat(row.spike["day"]),
            expected=BigInt(row.ceiling),
            quantity=BigInt(row.used),
            causes=[
                SpikeCause(
                    kind=models.SpikeCauseKind(cause["kind"]),
                    name=cause["name"],
                    quantity=BigInt(cause["quantity"]),
                    usual=BigInt(cause["usual"]),
                )
                for cause in row.spike["causes"]
            ],
        )
