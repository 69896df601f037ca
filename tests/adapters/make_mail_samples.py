"""Take the pictures of mails in docs/samples anew: `.venv/bin/python -m tests.adapters.make_mail_samples`."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import uvicorn
from starlette.applications import Starlette

from plafond.adapters.mail_folder import MailFolder
from plafond.adapters.mime import Sender, write_html
from plafond.http.mails import MailPages
from plafond.serving import bind_port

from .browser import find_browser, take_picture
from .letters import SAMPLES

SENDER = Sender("billing@plafond.example")


def main(target: Path = Path("docs/samples")) -> None:
    """Take each picture."""
    browser = find_browser()
    with TemporaryDirectory() as given:
        folder = Path(given)
        for name, letter in SAMPLES.items():
            page = folder / "mail.html"
            page.write_text(write_html(letter), "utf-8")
            take_picture(browser, page, target / name, 640, 900)
        _picture_page(browser, folder / "mail", target / "mail-page.png")


def _picture_page(browser: str, folder: Path, picture: Path) -> None:
    """The sandbox's page of mails, from a server."""
    mailer = MailFolder(folder, SENDER)
    for number, letter in enumerate(SAMPLES.values(), 1):
        asyncio.run(mailer.send(replace(letter, id=UUID(int=number))))
    listener = bind_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=MailPages(folder).routes()), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/mail/{UUID(int=1)}"
        take_picture(browser, address, picture, 900, 1_000)
    finally:
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":
    main()
