"""Take the pictures of mails in docs/samples anew: `.venv/bin/python -m tests.adapters.make_mail_samples`."""

import asyncio
import hashlib
import struct
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import uvicorn
from starlette.applications import Starlette

from plafond.adapters.mail_folder import MailFolder
from plafond.adapters.mime import TEMPLATES, Sender, write_html
from plafond.http.mails import MailPages
from plafond.services.letters import Letter
from plafond.serving import bind_port

from .browser import find_browser, take_picture
from .letters import SAMPLES

SENDER = Sender("billing@plafond.example")
PAGE = "mail-page.png"


def main(target: Path = Path("docs/samples")) -> None:
    """Take each picture."""
    browser = find_browser()
    with TemporaryDirectory() as given:
        folder = Path(given)
        for name, letter in SAMPLES.items():
            page = folder / "mail.html"
            page.write_text(write_html(letter), "utf-8")
            take_picture(browser, page, target / name, 640, 900)
            sign(target / name, source_of(letter))
        _picture_page(browser, folder / "mail", target / PAGE)
        sign(target / PAGE, source_of_page())


def source_of(letter: Letter) -> str:
    """What a picture of a mail is of."""
    return write_html(letter)


def source_of_page() -> str:
    """What the picture of the page is of."""
    return (TEMPLATES / "one.html").read_text("utf-8") + source_of(next(iter(SAMPLES.values())))


def sign(picture: Path, source: str) -> None:
    """Write into a picture what it is of, as a text before its end: fonts differ, so pictures cannot be compared."""
    content = picture.read_bytes()
    text = b"tEXt" + b"Source\0" + hashlib.sha256(source.encode()).hexdigest().encode()
    end = content.rindex(b"IEND") - 4
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    picture.write_bytes(content[:end] + chunk + content[end:])


def read_signature(picture: Path) -> str:
    """What a picture says it is of."""
    _, _, rest = picture.read_bytes().rpartition(b"tEXtSource\0")
    return rest[:64].decode("ascii", "replace")


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
