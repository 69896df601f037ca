"""Draw docs/samples anew: `.venv/bin/python -m tests.adapters.make_samples`."""

from pathlib import Path

from plafond.adapters.pdf import draw_document

from . import papers

SAMPLES = {
    "invoice-de.pdf": papers.domestic,
    "invoice-reverse-charge-fr.pdf": papers.reverse_charge,
    "invoice-letter-us.pdf": papers.american,
    "invoice-ja.pdf": papers.in_yen,
    "invoice-plan-change-nl.pdf": papers.with_credits,
    "invoice-balance-es.pdf": papers.with_balance,
    "credit-note-de.pdf": papers.credit_note,
}


def main(target: Path = Path("docs/samples")) -> None:
    """Write each sample."""
    target.mkdir(parents=True, exist_ok=True)
    for name, make in SAMPLES.items():
        (target / name).write_bytes(draw_document(make().model_dump_json()))


if __name__ == "__main__":
    main()
