"""Letters of every kind, for tests of how they look and of what the outside does with them, and for docs/samples."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from plafond.services.letters import Attachment, Letter, Link

PLAIN = Letter(
    id=UUID("01a225a1-0000-7000-8000-000000000001"),
    written_at=datetime(2026, 11, 25, 12, 0, tzinfo=UTC),
    recipient="erika@example.com",
    recipient_name="Erika Muster",
    sender_name="Plafond GmbH",
    language="en",
    subject="Email sends: 90 % of the limit reached",
    paragraphs=("9,000 of 10,000 were used.", "The plan Professional would fit."),
    facts=(("Used", "9,000"), ("Limit", "10,000")),
    button=Link("Open your billing page", "https://app.example.com/billing"),
    why="You get this mail as a contact of Acme for: usage alerts.",
    unsubscribing=Link("Stop these mails: usage alerts", "https://billing.example.com/unsubscribe/TOKEN"),
    footer=("Plafond GmbH", "Torstraße 12", "10119 Berlin", "Germany"),
)
WITH_FILE = replace(
    PLAIN,
    subject="Invoice INV-000001: €10.00",
    unsubscribing=None,
    attachment=Attachment(name="INV-000001.pdf", media_type="application/pdf", content=b"%PDF-1.7 a page"),
)
