"""Named points at which a rehearsal may hurt this process. Nothing happens at them unless `PLAFOND_FAULT` names one."""

import os
import signal
from dataclasses import dataclass
from enum import StrEnum

POINTS = (
    "work.claimed",
    "close.after_period",
    "invoice.after_lines",
    "invoice.before_number",
    "invoice.after_number",
    "invoice.after_books",
    "invoice.before_commit",
    "charge.opened",
    "charge.before_call",
    "charge.after_call",
    "charge.before_commit",
    "charge.after_commit",
    "refund.opened",
    "refund.before_call",
    "refund.after_call",
    "refund.before_commit",
    "refund.after_commit",
    "message.taken",
    "message.heard",
    "document.drawn",
    "export.part",
    "export.written",
    "webhook.planned",
    "webhook.before_send",
    "webhook.after_send",
    "webhook.before_commit",
    "mail.planned",
    "mail.before_send",
    "mail.after_send",
    "usage.received",
    "alert.raised",
    "usage.before_commit",
    "usage.after_commit",
    "reservation.noted",
    "reservation.after_commit",
)
"""In order: when work was taken, within its transaction, around a charge and a refund, around the hearing of a message
of the processor, before a PDF is kept, before a piece of an export is, and before the export is ready; before what is
planned for webhooks is kept, around the sending of one, and before its answer is kept; before planned mails are kept,
and around the handing over of one; before a batch of usage is read, when it raises an alert, before and after it is
kept; within and after what becomes of a reservation."""


class Action(StrEnum):
    """What happens at a point."""

    KILL = "kill"
    """The process ends at once, as by the kernel."""
    STOP = "stop"
    """The process stands still until somebody sends it SIGCONT."""
    EXIT = "exit"
    """The process ends by itself, without tidying up."""
    RAISE = "raise"
    """The point fails, and the process goes on."""


class RehearsedFault(Exception):
    """What a point fails with."""


@dataclass(frozen=True)
class Fault:
    """What is to happen where, and at the how-manieth time that the point is reached."""

    point: str
    action: Action
    nth: int = 1


@dataclass
class _Rehearsal:
    fault: Fault | None = None
    reached: int = 0


_rehearsal = _Rehearsal()


def read_fault(text: str) -> Fault:
    """A fault as it is written: `POINT:ACTION` or `POINT:ACTION:N`. `ValueError` says what does not fit."""
    point, _, rest = text.partition(":")
    action, _, nth = rest.partition(":")
    if point not in POINTS:
        raise ValueError(f"{point!r} is no point: there are {', '.join(POINTS)}")
    if action not in tuple(Action):
        raise ValueError(f"{action!r} is no action: there are {', '.join(Action)}")
    if nth and not (nth.isascii() and nth.isdigit() and int(nth) > 0):
        raise ValueError(f"{nth!r} is no number of times: write 1 or more")
    return Fault(point, Action(action), int(nth or 1))


def rehearse(fault: Fault | None) -> None:
    """Let a fault happen in this process, once; none ends the rehearsal."""
    _rehearsal.fault, _rehearsal.reached = fault, 0


def reach(point: str) -> None:
    """Say that work came to a point."""
    fault = _rehearsal.fault
    if fault is None or fault.point != point:
        return
    _rehearsal.reached += 1
    if _rehearsal.reached == fault.nth:
        _strike(fault)


def _strike(fault: Fault) -> None:
    if fault.action is Action.RAISE:
        raise RehearsedFault(f"{fault.point} was to fail")
    if fault.action is Action.EXIT:
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL if fault.action is Action.KILL else signal.SIGSTOP)
