"""What Alembic runs. Connection, tables and environment come from the caller, see `__init__.py`."""

from typing import Any

from alembic import context


def render_item(kind: str, item: Any, autogen: Any) -> Any:
    """Write our own column types as SQLAlchemy's, so that a migration stands without the package."""
    if kind == "type" and type(item).__name__ == "UTC":
        return "sa.DateTime(timezone=True)"
    if kind == "type" and type(item).__name__ == "Document":
        autogen.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


attributes = context.config.attributes
connection = attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=attributes["metadata"],
    render_item=render_item,
    compare_type=True,
    compare_server_default=connection.dialect.name != "sqlite",
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
