"""Whether the process lives, and whether it can serve."""

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse

from ..database import Database


async def live(request: Request) -> JSONResponse:  # noqa: ARG001
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> JSONResponse:
    """The database answers too."""
    database: Database = request.app.state.database
    try:
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError):
        return JSONResponse({"status": "unavailable", "database": "does not answer"}, 503)
    return JSONResponse({"status": "ok"})
