"""Why a mutation was refused."""

from typing import Self

import strawberry

from ..services.errors import BillingError
from .enums import UserErrorCode
from .fields import said


@strawberry.type(description="Why a mutation was refused. Nothing of it was done.")
class UserError:
    """A refusal."""

    code: UserErrorCode = said("A stable code.")
    message: str = said("What to do about it, for people to read.")
    field: list[str] = said("The input field it is about, as a path with list indices; empty for none in particular.")

    @classmethod
    def of(cls, refusal: BillingError) -> Self:
        """A refusal as it is shown."""
        return cls(code=refusal.code, message=str(refusal), field=list(refusal.field))
