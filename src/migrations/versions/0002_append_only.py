"""append only: what is booked, frozen or logged never changes, whoever writes."""

from alembic import op

revision = "0002"
down_revision = "0001_usage"
branch_labels = None
depends_on = None

# Of these no row changes. Of the second group only the retention job deletes, with its pass for the account.
NEVER_DELETED = ("audit_entry",)
PURGED = (
    "ledger_posting",
    "ledger_entry",
    "invoice_line",
    "invoice_tax",
    "credit_note",
    "credit_note_line",
    "credit_note_tax",
    "document_bytes",
)
# A draft has lines of its own, that change until it is finalised.
ONLY_OF_DRAFTS = ("invoice_line", "invoice_tax")
# What stays of an audit entry when, with a pass, a person's data is erased from its details.
STAYS = ("id", "account_id", "number", "at", "actor", "origin", "action", "object", "previous_hash", "hash")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        old, new = (", ".join(f"{row}.{column}" for column in STAYS) for row in ("OLD", "NEW"))
        op.execute(
            "CREATE FUNCTION refuse_change_but_erasing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF EXISTS (SELECT 1 FROM purge_pass WHERE account_id = OLD.account_id) AND ({new}) IS NOT DISTINCT FROM "
            f"({old}) AND NEW.details_hash = coalesce(OLD.details_hash, NEW.details_hash) THEN RETURN NEW; END IF; "
            "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in NEVER_DELETED + PURGED:
            function = "refuse_change_but_erasing" if table == "audit_entry" else "refuse_change"
            op.execute(
                f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
            )
        for table in NEVER_DELETED:
            op.execute(
                f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
        op.execute(
            "CREATE FUNCTION refuse_delete_without_pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF EXISTS (SELECT 1 FROM purge_pass WHERE account_id = OLD.account_id) THEN RETURN OLD; END IF; "
            "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        op.execute(
            "CREATE FUNCTION refuse_delete_of_frozen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF EXISTS (SELECT 1 FROM purge_pass WHERE account_id = OLD.account_id) "
            "OR EXISTS (SELECT 1 FROM invoice WHERE id = OLD.invoice_id AND status = 'DRAFT') THEN RETURN OLD; END IF; "
            "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in PURGED:
            function = "refuse_delete_of_frozen" if table in ONLY_OF_DRAFTS else "refuse_delete_without_pass"
            op.execute(
                f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
            )
        return
    same = " AND ".join(f'NEW."{column}" IS OLD."{column}"' for column in STAYS)
    erases = (
        "WHEN NOT (EXISTS (SELECT 1 FROM purge_pass WHERE account_id = OLD.account_id) "
        f"AND {same} AND NEW.details_hash IS coalesce(OLD.details_hash, NEW.details_hash, '')) "
    )
    for table in NEVER_DELETED + PURGED:
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {erases if table == 'audit_entry' else ''}"
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    for table in NEVER_DELETED:
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    for table in PURGED:
        draft = (
            "AND NOT EXISTS (SELECT 1 FROM invoice WHERE id = OLD.invoice_id AND status = 'DRAFT') "
            if table in ONLY_OF_DRAFTS
            else ""
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
            f"WHEN NOT EXISTS (SELECT 1 FROM purge_pass WHERE account_id = OLD.account_id) {draft}"
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def downgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    for table in NEVER_DELETED + PURGED:
        for event in ("update", "delete"):
            op.execute(f"DROP TRIGGER {table}_no_{event}" + (f" ON {table}" if postgres else ""))
    if postgres:
        for function in ("refuse_change", "refuse_change_but_erasing", "refuse_delete_without_pass", "refuse_delete_of_frozen"):
            op.execute(f"DROP FUNCTION {function}()")
