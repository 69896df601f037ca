"""The mutations that make accounts and change what they are."""

from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.administration import (
    CreateBillingAccountInput,
    CreateBillingAccountPayload,
    DismissNoticeInput,
    DismissNoticePayload,
    SetTaxExemptionInput,
    SetTaxExemptionPayload,
    UpdateBillingAccountInput,
    UpdateBillingAccountPayload,
    UpdateCompanyInput,
    UpdateCompanyPayload,
)
from ..schema.billing import BillingAccount
from ..schema.company import Company
from ..schema.node import key_of
from ..services import accounts, companies, notices
from ..services.access import Principal, Right
from ..services.errors import InvalidInput, NotFound
from ..services.idempotency import Outcome, Request, idempotent
from ..services.relations import COMPANY_OF_ACCOUNT
from .access import find_account_id, mutation, require_operator, require_right
from .context import Info


@strawberry.type
class AccountMutation:
    """What of Mutation makes accounts and changes what they are."""

    @mutation(Right.OPERATE)
    async def create_billing_account(
        self,
        info: Info,
        input: Annotated[CreateBillingAccountInput, strawberry.argument(description="The account.")],
    ) -> CreateBillingAccountPayload:
        """Make an account. For operators; it behaves like free until a trial or a subscription starts."""
        require_operator(info)
        fields, clock_id = input.to_fields(), input.clock_id()
        request = Request(input.idempotency_key, scope="", given=[input.external_id, fields, clock_id])
        outcome = await info.context.run(_create_account, request, input.external_id, fields, clock_id)
        return CreateBillingAccountPayload(account=await _show(info, outcome))

    @mutation(Right.MANAGE_BILLING)
    async def update_billing_account(
        self,
        info: Info,
        input: Annotated[UpdateBillingAccountInput, strawberry.argument(description="What to change.")],
    ) -> UpdateBillingAccountPayload:
        """Change an account's name, zone, locale, metadata or spike alerts; for operators also currency and terms."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        fields = input.to_fields()
        request = Request(input.idempotency_key, scope=str(account_id), given=fields)
        outcome = await info.context.run(_update_account, request, info.context.principal, account_id, fields)
        return UpdateBillingAccountPayload(account=await _show(info, outcome))

    @mutation(Right.MANAGE_BILLING)
    async def update_company(
        self,
        info: Info,
        input: Annotated[UpdateCompanyInput, strawberry.argument(description="What to change.")],
    ) -> UpdateCompanyPayload:
        """Say who stands on the next invoices as the buyer. A document that was issued never changes."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        fields = input.to_fields()
        request = Request(input.idempotency_key, scope=str(account_id), given=fields)
        outcome = await info.context.run(_update_company, request, info.context.principal, account_id, fields)
        account = await _show(info, outcome)
        rows = await info.context.load.related(COMPANY_OF_ACCOUNT, account_id)
        return UpdateCompanyPayload(account=account, company=Company.of(rows[0]) if rows else None)

    @mutation(Right.OPERATE)
    async def set_tax_exemption(
        self,
        info: Info,
        input: Annotated[SetTaxExemptionInput, strawberry.argument(description="The certificate, or none.")],
    ) -> SetTaxExemptionPayload:
        """Free an account from tax by a certificate, or not any more. For operators."""
        account_id = find_account_id(info, input.account_id, Right.OPERATE)
        if input.exemption is strawberry.UNSET:
            raise InvalidInput("Give the `exemption`, or null to take it away.", ["input", "exemption"])
        certificate = input.to_certificate()
        request = Request(input.idempotency_key, scope=str(account_id), given=certificate)
        outcome = await info.context.run(_set_tax_exemption, request, account_id, certificate)
        return SetTaxExemptionPayload(account=await _show(info, outcome))

    @mutation(Right.MANAGE_BILLING)
    async def dismiss_notice(
        self,
        info: Info,
        input: Annotated[DismissNoticeInput, strawberry.argument(description="Which one.")],
    ) -> DismissNoticePayload:
        """Put a notice away for everybody of the account. It comes back if it has something new to say."""
        notice = await _find_notice(info, input.notice_id)
        request = Request(input.idempotency_key, scope=str(notice.account_id), given=notice.id)
        outcome = await info.context.run(_dismiss_notice, request, notice.account_id, notice.id)
        return DismissNoticePayload(account=await _show(info, outcome))


async def _find_notice(info: Info, id: str) -> models.Notice:
    key = key_of(id, "Notice")
    notice = None if key is None else await info.context.load.row(models.Notice, key)
    principal = info.context.principal
    if notice is None or principal.role_in(notice.account_id) is None or not notices.is_meant_for(principal, notice):
        raise NotFound(notices.UNKNOWN_NOTICE, ["input", "noticeId"])
    require_right(info, Right.MANAGE_BILLING, notice.account_id)
    return notice


async def _show(info: Info, outcome: Outcome) -> BillingAccount:
    """The account of an answer, as it is after the commit."""
    info.context.note_replay(replayed=outcome.replayed)
    account = await info.context.load.account(UUID(outcome.answer["accountId"]))
    assert account is not None, "accounts are never deleted"
    return BillingAccount.of(account)


def _remember(account: models.BillingAccount) -> dict[str, Any]:
    return {"accountId": str(account.id)}


@idempotent("createBillingAccount")
async def _create_account(
    work: Work, external_id: str, fields: accounts.AccountFields, test_clock_id: UUID | None
) -> dict[str, Any]:
    return _remember(await accounts.create_account(work, external_id, fields, test_clock_id=test_clock_id))


@idempotent("updateBillingAccount")
async def _update_account(
    work: Work, principal: Principal, account_id: UUID, fields: accounts.AccountFields
) -> dict[str, Any]:
    return _remember(await accounts.update_account(work, principal, account_id, fields))


@idempotent("updateCompany")
async def _update_company(
    work: Work, principal: Principal, account_id: UUID, fields: companies.CompanyFields
) -> dict[str, Any]:
    return _remember(await companies.update_company_as(work, principal, account_id, fields))


@idempotent("setTaxExemption")
async def _set_tax_exemption(work: Work, account_id: UUID, certificate: companies.Certificate | None) -> dict[str, Any]:
    return _remember(await companies.set_tax_exemption(work, account_id, certificate))


@idempotent("dismissNotice")
async def _dismiss_notice(work: Work, account_id: UUID, notice_id: UUID) -> dict[str, Any]:
    return _remember(await notices.dismiss_notice(work, account_id, notice_id))
