"""A life told by mail: what each kind says, when it comes, and to whom."""

from datetime import UTC, datetime, timedelta

from plafond.models import ContactTopic, MailKind

from ..conftest import Client, World
from ..services.mails import Kept, account_of_life, deliver, make_contact, plan
from .every_mail import live_through_every_kind
from .life import Life

START = datetime(2026, 1, 10, 9, tzinfo=UTC)


async def begin(client: Client, world: World, **given: object) -> tuple[Life, Kept]:
    """An account on a test clock with one contact that wants all, and the post."""
    await plan(world.database)
    life = await Life.begin(client, world, START, **given)  # type: ignore[arg-type]
    account = await account_of_life(world, life.external_id)
    await make_contact(world, account.id, "erika@example.com")
    return life, Kept()


async def test_a_trial_that_becomes_a_plan_and_runs_out_of_money(client: Client, world: World) -> None:
    life, kept = await begin(client, world, card=None)
    await life.do("startTrial", planKey="starter", interval="MONTH")
    assert [letter.subject for letter in await deliver(world, kept)] == ["Your trial of Starter has begun"]
    await life.advance(START + timedelta(days=7, minutes=1))
    [letter] = await deliver(world, kept)
    assert letter.subject == "Your trial ends on January 24, 2026"
    assert letter.paragraphs == (
        "Add a payment method to keep the plan.",
        "Without that the account is read-only from then on.",
    )
    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.advance(START + timedelta(days=14, minutes=1))
    [soon, started, invoice] = await deliver(world, kept)
    assert soon.paragraphs == ("The plan then goes on, and its first invoice is charged to your payment method.",)
    assert (started.subject, started.facts[0]) == ("Your subscription to Starter has begun", ("Plan", "Starter"))
    assert invoice.subject.startswith("Invoice TST-")
    await life.do("addPaymentMethod", token="pm_card_chargeDeclined")
    due = datetime(2026, 2, 24, 10, tzinfo=UTC)
    await life.advance(due)
    letters = await deliver(world, kept)
    assert [letter.subject.split(" ")[0] for letter in letters] == ["Payment", "Invoice"]
    failed = letters[0]
    assert failed.paragraphs[1:] == (
        "The card was declined.",
        "Without payment the account is suspended on March 3, 2026.",
        "Update the payment method, or try the payment again.",
    )
    assert ("Days left", "7") in failed.facts
    assert failed.unsubscribing is None
    await life.advance(due + timedelta(days=7, minutes=1))
    letters = await deliver(world, kept)
    assert [letter.paragraphs[2] for letter in letters[:3]] == [
        "Without payment the account is suspended on March 3, 2026.",
        "Without payment the account is suspended on March 3, 2026.",
        "The account is suspended. Without payment the subscription ends on March 10, 2026.",
    ]
    assert [letter.subject for letter in letters[3:]] == ["Your account is suspended"]
    await life.do("addPaymentMethod", token="pm_card_visa")
    [recovered] = await deliver(world, kept)
    assert recovered.subject.endswith("is paid")
    assert recovered.paragraphs[1] == "Nothing else is overdue."
    await life.do("cancelSubscription")
    await life.do("resumeSubscription")
    await life.do("cancelSubscription")
    await life.advance(datetime(2026, 3, 25, tzinfo=UTC))
    letters = await deliver(world, kept)
    assert [letter.subject for letter in letters] == [
        "Your subscription ends on March 24, 2026",
        "Your subscription goes on",
        "Your subscription ends on March 24, 2026",
        "Your subscription has ended",
    ]
    assert all(letter.unsubscribing is not None for letter in letters)
    await life.advance(datetime(2026, 6, 25, tzinfo=UTC))
    # With the data of the account, whom to tell of it is gone too.
    assert await deliver(world, kept) == []
    await life.audit(world)


async def test_a_year_ahead_with_a_card_that_expires(client: Client, world: World) -> None:
    life, kept = await begin(client, world, locale="de-DE", company="DE", currency="EUR")
    await life.do("startSubscription", planKey="starter", interval="YEAR")
    await deliver(world, kept)
    await life.advance(datetime(2027, 1, 5, tzinfo=UTC))
    letters = await deliver(world, kept)
    renewals = [letter for letter in letters if "verlängert" in letter.subject]
    assert [letter.facts[1] for letter in renewals] == [("Verbleibende Tage", "30"), ("Verbleibende Tage", "7")]
    assert renewals[0].subject == "Ihr Jahrestarif verlängert sich am 10. Januar 2027"
    assert "470,00\u00a0€" in renewals[0].paragraphs[0]
    assert {letter.language for letter in letters} == {"de"}


async def test_a_jump_sends_one_mail_and_a_refund_is_told(client: Client, world: World) -> None:
    life, kept = await begin(client, world)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.use(quantity=7_900)
    await deliver(world, kept)
    await life.use(quantity=2_200)
    [letter] = await deliver(world, kept)
    assert letter.subject == "Email sends: the limit is reached"
    assert letter.paragraphs[0] == "10,100 of 10,000 were used: 100\u00a0% of the limit is reached."
    assert letter.paragraphs[1] == (
        "What happens now: What passes the limit goes on, and is charged: $10.00 for each started block of 10,000, "
        "before tax."
    )
    assert letter.paragraphs[2] == (
        "The plan Professional would fit: it includes 50,000 and costs $149.00 a month, before tax."
    )
    alerts = await life.ask("alerts(first: 10) { nodes { threshold } }")
    assert sorted(node["threshold"] for node in alerts["alerts"]["nodes"]) == [80, 90, 95, 100]
    charges = await life.ask(
        "transactions(first: 5, filter: { kind: [CHARGE] }) { nodes { id amount { amountMinor } } }"
    )
    charge = charges["transactions"]["nodes"][-1]["id"]
    asked = await life.do("requestRefund", "refundRequest { id }", transactionId=charge, reason="GOODWILL")
    await life.do(
        "reviewRefund", "refundRequest { id }", refundRequestId=asked["refundRequest"]["id"], decision="APPROVE"
    )
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    await life.do("changePlan", planKey="professional", interval="MONTH")
    subjects = [letter.subject for letter in await deliver(world, kept)]
    assert "Your add-ons have changed" in subjects
    assert "Your plan is now Professional" in subjects
    # It went through at once, so that it was approved is no mail of its own.
    assert [subject for subject in subjects if "efund" in subject] == [
        "Refund of $49.00 was requested",
        "$49.00 was refunded",
    ]
    assert any(subject.startswith("Credit note TST-") for subject in subjects)


async def test_who_wants_what(client: Client, world: World) -> None:
    """With no contact for invoices the company's own address gets them."""
    life, kept = await begin(client, world)
    account = await account_of_life(world, life.external_id)
    await make_contact(world, account.id, "uso@example.com", ContactTopic.USAGE_ALERTS, locale="es")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.use(quantity=8_000)
    letters = await deliver(world, kept)
    assert [(letter.recipient, letter.language) for letter in letters if "80" in letter.subject] == [
        ("erika@example.com", "en"),
        ("uso@example.com", "es"),
    ]
    assert sum(letter.recipient == "uso@example.com" for letter in letters) == 1


async def test_a_mail_of_every_kind_comes(client: Client, world: World) -> None:
    letters = await live_through_every_kind(client, world)
    assert {kind for kind, _ in letters} == set(MailKind)
    assert len({letter.id for _, letter in letters}) == len(letters)
    for _, letter in letters:
        said = [letter.subject, *letter.paragraphs, letter.why, *(part for fact in letter.facts for part in fact)]
        assert all(said)
        assert not any("{" in part or "None" in part for part in said), said
        assert letter.footer[0] == "Plafond Sandbox GmbH"
        assert letter.button.url.startswith("https://app.example.com/billing")
