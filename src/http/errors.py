"""What is answered where no endpoint answers: JSON, like everything else."""

import secrets
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..services.errors import ErrorCode

MESSAGES = {
    404: (ErrorCode.NOT_FOUND, "There is nothing at this path: GraphQL is at /graphql, usage goes to /usage."),
    405: (ErrorCode.BAD_USER_INPUT, "This method is not offered here: send a POST."),
}


async def refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """A 404, 405 and the like as a GraphQL error."""
    assert isinstance(error, HTTPException), "registered for these"
    code, message = MESSAGES.get(error.status_code, (ErrorCode.BAD_USER_INPUT, error.detail))
    return answer_error(error.status_code, code, message, error.headers)


def answer_error(status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A refusal as a GraphQL error, under an id of its own."""
    request_id = secrets.token_hex(8)
    extensions = {"code": code, "requestId": request_id}
    return JSONResponse(
        {"errors": [{"message": message, "extensions": extensions}]},
        status,
        {
            **(headers or {}),
            "X-Request-Id": request_id,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )
