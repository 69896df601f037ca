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
SAMPLES = {
    "mail-usage-alert-en.png": replace(
        PLAIN,
        paragraphs=(
            "9,000 of 10,000 were used: 90\u00a0% of the limit is reached.",
            "The plan Professional would fit: it includes 50,000 and costs $149.00 a month, before tax.",
            "The add-on Extra emails would do too: 1 in all.",
        ),
        facts=(
            ("Used", "9,000"),
            ("Limit", "10,000"),
            ("Reached", "90\u00a0%"),
            ("Starts anew on", "December 10, 2026"),
            (
                "At 100\u00a0%",
                "What passes the limit goes on, and is charged: $10.00 for each started block of 10,000, before tax.",
            ),
        ),
    ),
    "mail-invoice-de.png": replace(
        WITH_FILE,
        language="de",
        subject="Rechnung INV-001042: 177,31\u00a0€",
        paragraphs=(
            "Ihre Rechnung INV-001042 wurde ausgestellt.",
            "Wird automatisch von Visa •••• 4242 abgebucht.",
            "Das Dokument liegt als PDF bei.",
        ),
        facts=(
            ("Nummer", "INV-001042"),
            ("Datum", "25. November 2026"),
            ("Gesamtbetrag", "177,31\u00a0€"),
            ("Zahlbetrag", "177,31\u00a0€"),
        ),
        button=Link("Abrechnungsseite öffnen", "https://app.example.com/billing"),
        why="Sie erhalten diese E-Mail als Kontakt von Müller & Söhne OHG für: Rechnungen.",
        footer=("Plafond GmbH", "Torstraße 12", "10119 Berlin", "Deutschland"),
    ),
    "mail-payment-failed-fr.png": replace(
        PLAIN,
        language="fr",
        subject="Paiement échoué\u00a0: 58,80\u00a0€ pour la facture INV-001043",
        paragraphs=(
            "58,80\u00a0€ pour la facture INV-001043 n’ont pas pu être prélevés.",
            "La carte a été refusée.",
            "Sans paiement, le compte sera suspendu le 2 décembre 2026.",
            "Mettez à jour le moyen de paiement, ou réessayez le paiement.",
        ),
        facts=(("Facture", "INV-001043"), ("Montant", "58,80\u00a0€"), ("Jours restants", "7")),
        button=Link("Ouvrir votre page de facturation", "https://app.example.com/billing"),
        why="Vous recevez cet e-mail en tant que contact de Société Générale d’Électricité SA pour\u00a0: paiements.",
        unsubscribing=None,
        footer=("Plafond GmbH", "Torstraße 12", "10119 Berlin", "Allemagne"),
    ),
}
"""Those in docs/samples, by the name of their picture."""
