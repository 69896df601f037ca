"""The page behind a link to unsubscribe. Looking at it changes nothing: mail scanners look at every link."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ..adapters.mime import write_page
from ..database import AWAY, Database
from ..services.errors import ErrorCode
from ..services.mail_words import mail_word
from ..services.unsubscribing import Subscribed, find_subscribed, unsubscribe
from .errors import answer_error

HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
GONE = "This link does not end anything, or not any more: the mail's contact may be gone."
RETRY_S = 5


class UnsubscribeEndpoint:
    """Answers `/unsubscribe/…`. A POST does it, also the one that mail programs send by themselves (RFC 8058)."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database = database
        self._key = key

    async def answer(self, request: Request) -> Response:
        """Ask, or do it."""
        try:
            async with self._database.read() as session:
                now = self._database.clock.now()
                found = await find_subscribed(session, self._key, request.path_params["token"], now)
            if found is None:
                return answer_error(404, ErrorCode.NOT_FOUND, GONE)
            if request.method == "POST":
                await unsubscribe(self._database, found)
                return _show(found, "unsubscribed_title", "unsubscribed", None)
        except AWAY:
            message = "The database does not answer: try again in a moment."
            return answer_error(503, ErrorCode.UNAVAILABLE, message, {"Retry-After": str(RETRY_S)})
        if found.topic not in found.contact.topics:
            return _show(found, "unsubscribed_title", "unsubscribed", None)
        return _show(found, "unsubscribe_title", "unsubscribe_ask", "unsubscribe_button")


def _show(found: Subscribed, title: str, text: str, button: str | None) -> Response:
    language = found.language
    topic = mail_word(language, found.topic)
    page = write_page(
        "unsubscribe.html",
        language=language,
        title=mail_word(language, title),
        text=mail_word(language, text, email=found.contact.email, account=found.account.name, topic=topic),
        button=None if button is None else mail_word(language, button),
    )
    return HTMLResponse(page, headers=HEADERS)
