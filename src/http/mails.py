"""The sandbox's page of mails: what would have been sent, for whoever sits at this machine."""

import asyncio
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ..adapters.mail_folder import StoredMail, list_mails, read_mail
from ..adapters.mime import write_page

SHOWN = 200
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'"
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'none'; frame-ancestors 'self'"
)


def is_here(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class MailPages:
    """Answers `/mail`. There is no sign-in: it is only there on a sandbox's server that this machine alone reaches."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        return [
            Route("/mail", self.list),
            Route("/mail/{name}", self.show),
            Route("/mail/{name}/html", self.show_html),
            Route("/mail/{name}/text", self.show_text),
            Route("/mail/{name}/attachments/{number:int}", self.download),
        ]

    async def list(self, request: Request) -> Response:
        """The newest mails."""
        _refuse_strangers(request)
        mails = await asyncio.to_thread(list_mails, self._folder, SHOWN)
        return _page("mails.html", mails=[_describe(mail) for mail in mails], folder=str(self._folder), shown=SHOWN)

    async def show(self, request: Request) -> Response:
        """One mail: headers, the HTML in a frame that can do nothing, the text, the files."""
        mail = await self._find(request)
        return _page(
            "one.html",
            mail=_describe(mail),
            headers=[(name, str(value)) for name, value in mail.message.items() if not name.startswith("Content-")],
            text=_part(mail, "plain"),
            files=[
                {"number": number, "name": part.get_filename(), "size": len(part.get_content())}
                for number, part in enumerate(mail.message.iter_attachments())
            ],
        )

    async def show_html(self, request: Request) -> Response:
        """The HTML part alone, for the frame."""
        html = _part(await self._find(request), "html")
        # Links open beside the page: within the frame they could do nothing.
        html = html.replace("<head>", '<head><base target="_blank">', 1)
        return HTMLResponse(html, headers=_headers(MAIL_POLICY))

    async def show_text(self, request: Request) -> Response:
        """The text part alone."""
        return PlainTextResponse(_part(await self._find(request), "plain"), headers=_headers(PAGE_POLICY))

    async def download(self, request: Request) -> Response:
        """A file that went along."""
        files = list((await self._find(request)).message.iter_attachments())
        number = request.path_params["number"]
        if number >= len(files):
            raise HTTPException(404)
        file = files[number]
        headers = _headers(PAGE_POLICY) | {"Content-Disposition": f'attachment; filename="{file.get_filename()}"'}
        return Response(file.get_content(), media_type=file.get_content_type(), headers=headers)

    async def _find(self, request: Request) -> StoredMail:
        _refuse_strangers(request)
        mail = await asyncio.to_thread(read_mail, self._folder, request.path_params["name"])
        if mail is None:
            raise HTTPException(404)
        return mail


def _refuse_strangers(request: Request) -> None:
    """A page of somebody else's that gives its own name our address reads nothing here."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    if host is None or not is_here(host):
        raise HTTPException(404)


def _describe(mail: StoredMail) -> dict[str, str]:
    message = mail.message
    return {
        "name": mail.name,
        "at": f"{mail.at:%Y-%m-%d %H:%M:%S} UTC",
        "to": str(message["To"]),
        "subject": str(message["Subject"]),
        "language": str(message["Content-Language"]),
    }


def _part(mail: StoredMail, kind: str) -> str:
    part = mail.message.get_body((kind,))
    assert isinstance(part, EmailMessage), "each mail has both"
    return str(part.get_content())


def _page(name: str, **said: object) -> Response:
    return HTMLResponse(write_page(name, **said), headers=_headers(PAGE_POLICY))


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
