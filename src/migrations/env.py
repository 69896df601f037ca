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


def include_name(name: str | None, kind: str, parents: Any) -> bool:  # noqa: ARG001
    """Leave out the partitions of a table: they are made and let go as time passes."""
    return not (kind == "table" and name is not None and name.startswith("usage_event_") and name != "usage_event_id")


attributes = context.config.attributes
connection = attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=attributes["metadata"],
    render_item=render_item,
    include_name=include_name,
    compare_type=True,
    compare_server_default=connection.dialect.name != "sqlite",
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
