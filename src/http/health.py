"""Whether the process lives, and whether it can serve."""

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse

from ..database import Database
from ..stopping import Stopping


async def live(request: Request) -> JSONResponse:  # noqa: ARG001
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> JSONResponse:
    """The database answers too, and the process is not about to end."""
    stopping: Stopping = request.app.state.stopping
    if stopping.has_begun:
        return JSONResponse({"status": "stopping"}, 503)
    database: Database = request.app.state.database
    for may_lag in (False, True) if database.replica is not None else (False,):
        try:
            async with database.read(may_lag=may_lag) as session:
                await session.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError):
            name = "replica" if may_lag else "database"
            return JSONResponse({"status": "unavailable", name: "does not answer"}, 503)
    return JSONResponse({"status": "ok"})
