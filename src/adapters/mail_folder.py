"""Mails as files, in place of sending them: what a sandbox does with them."""

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from uuid import UUID

from ..services.letters import Letter
from .mime import Sender, make_message

KEPT = 1_000
"""So many of the newest mails lie in the folder."""
_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class StoredMail:
    """One mail of the folder."""

    name: str
    at: datetime
    message: EmailMessage


class MailFolder:
    """Writes each mail to a file named by its id: sent twice, it is there once."""

    def __init__(self, folder: Path, sender: Sender) -> None:
        self.folder = folder
        self._sender = sender

    async def send(self, letter: Letter) -> None:
        """Keep a mail, and let go of the oldest."""
        content = make_message(letter, self._sender).as_bytes()
        await asyncio.to_thread(self._write, letter.id, content)

    def _write(self, mail_id: UUID, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, whenever this process ends.
        unfinished = self.folder / f"{mail_id}.{os.getpid()}.part"
        unfinished.write_bytes(content)
        unfinished.replace(self.folder / f"{mail_id}.eml")
        # Ids rise with time, so the names do.
        names = sorted(path.name for path in self.folder.glob("*.eml"))
        for name in names[:-KEPT]:
            (self.folder / name).unlink(missing_ok=True)


def list_mails(folder: Path, limit: int) -> Sequence[StoredMail]:
    """The newest mails, the last one first."""
    names = sorted((path.stem for path in folder.glob("*.eml") if _NAME.fullmatch(path.stem)), reverse=True)
    return [mail for name in names[:limit] if (mail := read_mail(folder, name)) is not None]


def read_mail(folder: Path, name: str) -> StoredMail | None:
    """A mail by its id; none for what is not there, or no id."""
    if not _NAME.fullmatch(name):
        return None
    try:
        message = message_from_bytes((folder / f"{name}.eml").read_bytes(), policy=default)
    except FileNotFoundError:
        return None
    return StoredMail(name, message["Date"].datetime, message)
