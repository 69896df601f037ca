"""Contacts: the mailboxes that an account's mail goes to. One of them is the primary one, as soon as there is any."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import AlertDelivery, BillingAccount, Contact, ContactTopic
from . import inputs
from .access import Principal
from .accounts import lock_account
from .edits import describe_columns, record_update, set_columns
from .errors import Conflict, InvalidInput, NotFound
from .mailboxes import key_of_email
from .permissions import Action, require_action

MAX_OTHERS = 100
"""Contacts beside the primary one."""
MAX_NAME = 255
UNKNOWN_CONTACT = "There is no such contact, or it is not yours."
_ADDRESS = ["input", "email"]


class ContactFields(TypedDict, total=False):
    """What of a contact is set. What is not in it stays; a null locale is the account's."""

    name: str | None
    email: str | None
    locale: str | None
    topics: list[ContactTopic] | None
    alert_delivery: AlertDelivery | None
    is_primary: bool | None


async def add_contact(work: Work, principal: Principal, account_id: UUID, given: ContactFields) -> Contact:
    """Have mail sent to a mailbox. The first contact is the primary one, whatever is said."""
    account = await _begin(work, principal, account_id)
    values = _check_fields(given)
    others = await _list(work, account)
    if len(others) > MAX_OTHERS:
        raise Conflict(
            f"The account has {MAX_OTHERS} contacts beside the primary one: remove one first.", ["input", "accountId"]
        )
    _check_address(others, values["email_key"])
    is_primary = bool(values.pop("is_primary", False)) or not others
    if is_primary:
        await _dethrone(work, account, others)
    contact = Contact(
        created_at=work.clock.now_for(account),
        account_id=account.id,
        is_primary=is_primary,
        **{"topics": [], **values},
    )
    work.session.add(contact)
    await work.session.flush()
    _record(work, account, contact, "contact.added", {}, _describe({**values, "is_primary": is_primary}))
    return contact


async def update_contact(work: Work, principal: Principal, found: Contact, given: ContactFields) -> Contact:
    """Change what is given of a contact. Made the primary one, it takes that from who was."""
    account = await _begin(work, principal, found.account_id)
    values = _check_fields(given)
    everyone = await _list(work, account)
    contact = next((row for row in everyone if row.id == found.id), None)
    if contact is None:
        raise NotFound(UNKNOWN_CONTACT, ["input", "contactId"])
    others = [row for row in everyone if row.id != contact.id]
    if "email_key" in values:
        _check_address(others, values["email_key"])
    if contact.is_primary and values.get("is_primary") is False:
        raise InvalidInput(
            "One contact is the primary one: make another one so, and this one is not any more.",
            ["input", "isPrimary"],
        )
    if values.get("is_primary") and not contact.is_primary:
        await _dethrone(work, account, others)
    before, after = set_columns(contact, values)
    if after:
        contact.updated_at = work.clock.now_for(account)
        _record(work, account, contact, "contact.updated", _hide(before), _hide(after))
    return contact


async def remove_contact(work: Work, principal: Principal, found: Contact) -> None:
    """Send nothing more to a contact. The primary one goes last."""
    account = await _begin(work, principal, found.account_id)
    everyone = await _list(work, account)
    contact = next((row for row in everyone if row.id == found.id), None)
    if contact is None:
        raise NotFound(UNKNOWN_CONTACT, ["input", "contactId"])
    if contact.is_primary and len(everyone) > 1:
        raise Conflict("This is the primary contact: make another one the primary one first.", ["input", "contactId"])
    columns = ("name", "email", "locale", "topics", "alert_delivery", "is_primary")
    before = _describe({column: getattr(contact, column) for column in columns})
    await work.session.delete(contact)
    _record(work, account, contact, "contact.removed", before, {})


async def _begin(work: Work, principal: Principal, account_id: UUID) -> BillingAccount:
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.MANAGE_CONTACTS)
    return account


async def _list(work: Work, account: BillingAccount) -> Sequence[Contact]:
    return (await work.session.scalars(select(Contact).where(Contact.account_id == account.id))).all()


def _check_address(others: Sequence[Contact], email_key: str) -> None:
    if any(row.email_key == email_key for row in others):
        raise Conflict("Another contact of the account has this address: change that one.", _ADDRESS)


async def _dethrone(work: Work, account: BillingAccount, others: Sequence[Contact]) -> None:
    """Make room for another primary contact, before it is one: the database knows only one at a time."""
    for row in others:
        if row.is_primary:
            row.is_primary, row.updated_at = False, work.clock.now_for(account)
    await work.session.flush()


def _check_fields(given: ContactFields) -> dict[str, Any]:
    """The values of the columns that are set."""
    checks: dict[str, Callable[[], Any]] = {}
    if "name" in given:
        checks["name"] = partial(inputs.check_text, given["name"], ["input", "name"], at_most=MAX_NAME)
    if "email" in given:
        checks["email"] = partial(_check_email, given["email"])
    if "locale" in given:
        checks["locale"] = partial(_check_locale, given["locale"])
    if "topics" in given:
        checks["topics"] = partial(inputs.require_given, given["topics"], ["input", "topics"])
    if "alert_delivery" in given:
        checks["alert_delivery"] = partial(inputs.require_given, given["alert_delivery"], ["input", "alertDelivery"])
    if "is_primary" in given:
        checks["is_primary"] = partial(inputs.require_given, given["is_primary"], ["input", "isPrimary"])
    found = inputs.check_all(checks)
    if "topics" in found:
        found["topics"] = sorted({str(topic) for topic in found["topics"]})
    if "email" in found:
        found["email_key"] = key_of_email(found["email"])
    return found


def _check_email(value: str | None) -> str:
    return inputs.check_email(inputs.require_given(value, _ADDRESS), _ADDRESS)


def _check_locale(value: str | None) -> str | None:
    return None if value is None else inputs.check_locale(value, ["input", "locale"])


def _describe(values: dict[str, Any]) -> dict[str, Any]:
    return _hide(describe_columns(values))


def _hide(details: dict[str, Any]) -> dict[str, Any]:
    """Without what follows from the address."""
    return {name: value for name, value in details.items() if name != "emailKey"}


def _record(
    work: Work, account: BillingAccount, contact: Contact, action: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    record_update(work, account, action, f"contact:{contact.id}", changed=["contacts"], before=before, after=after)
