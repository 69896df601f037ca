"""Draw docs/samples anew: `.venv/bin/python -m tests.adapters.make_samples`."""

from collections.abc import Callable
from pathlib import Path

from plafond.adapters.pdf import draw_document
from plafond.services.papers import Content

from . import papers

SAMPLES: dict[str, Callable[[], Content]] = {
    "invoice-de.pdf": papers.domestic,
    "invoice-reverse-charge-fr.pdf": papers.reverse_charge,
    "invoice-letter-us.pdf": papers.american,
    "invoice-ja.pdf": papers.in_yen,
    "invoice-plan-change-nl.pdf": papers.with_credits,
    "invoice-balance-es.pdf": papers.with_balance,
    "credit-note-de.pdf": papers.credit_note,
    "receipt-de.pdf": papers.card_receipt,
    "receipt-transfer-fr.pdf": papers.transfer_receipt,
    "refund-receipt-letter-us.pdf": papers.refund_receipt,
    "usage-report-de.pdf": papers.usage_report,
}


def main(target: Path = Path("docs/samples")) -> None:
    """Write each sample."""
    target.mkdir(parents=True, exist_ok=True)
    for name, make in SAMPLES.items():
        (target / name).write_bytes(draw_document(make().model_dump_json()))


if __name__ == "__main__":
    main()
