"""A small Stripe of our own: strict where the real one is, and as unreliable as it is told to be.

It is served by a real server on the loopback, so that the SDK, the connection and the bytes are real too. What it knows
is what the adapter needs, by the documented rules of API version 2026-10-28.endive.
"""

import asyncio
import hashlib
import json
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from typing import Any
from urllib.parse import parse_qsl

import stripe
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

SECRET_KEY = "sk_test_of_the_fake"
WEBHOOK_SECRET = "whsec_of_the_fake"

Params = dict[str, str]
Object = dict[str, Any]

CARDS = {
    "pm_card_visa": "4242",
    "pm_card_mastercard": "4444",
    "pm_card_chargeDeclined": "0002",
    "pm_card_chargeCustomerFail": "0341",
    "pm_card_chargeDeclinedInsufficientFunds": "9995",
    "pm_card_chargeDeclinedExpiredCard": "0069",
    "pm_card_chargeDeclinedIncorrectCvc": "0127",
    "pm_card_chargeDeclinedStolenCard": "9979",
    "pm_card_chargeDeclinedProcessingError": "0119",
    "pm_card_authenticationRequired": "3184",
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": "8260",
    "pm_card_createDispute": "0259",
    "pm_card_pendingRefund": "7726",
    "pm_card_refundFail": "5126",
}
DECLINES = {
    "0341": ("card_declined", "generic_decline"),
    "9995": ("card_declined", "insufficient_funds"),
    "0069": ("expired_card", "expired_card"),
    "0127": ("incorrect_cvc", "incorrect_cvc"),
    "9979": ("card_declined", "stolen_card"),
    "0119": ("processing_error", "processing_error"),
}
WANTS_CARDHOLDER = {"3184": None, "8260": ("card_declined", "insufficient_funds")}
PATIENCE_S = 20.0
DROPS = 250
DROP_EVERY_S = 0.02
IN_TENS = {"bhd", "jod", "kwd", "omr", "tnd"}
IN_HUNDREDS = {"isk", "ugx"}
AT_LEAST = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "chf": 50, "cad": 50, "aud": 50}


class Fault(StrEnum):
    """What may go wrong with a request."""

    HANGS = auto()
    """Nothing is done, and nothing is answered."""
    FAILS_AFTER_EFFECT = auto()
    """It is done, and a 500 is answered, which is remembered under the key."""
    CUT = auto()
    """It is done, and the connection ends in the middle of the answer."""
    DRIPS = auto()
    """It is done, and the answer comes a byte at a time, for longer than anybody waits."""
    TOO_MANY = auto()
    LOCKED = auto()
    NOT_JSON = auto()
    NOT_AN_OBJECT = auto()
    OTHER_AMOUNT = auto()
    """It is done, and the answer names another amount."""


class Refused(Exception):
    """An answer of the API that is an error."""

    def __init__(self, status: int, kind: str, **more: Any) -> None:
        super().__init__(kind)
        self.status = status
        self.body = {"error": {"type": kind, "message": "No.", **more}}


def invalid(param: str | None = None, code: str | None = None, status: int = 400) -> Refused:
    return Refused(status, "invalid_request_error", param=param, code=code)


def missing(param: str, status: int = 400) -> Refused:
    return invalid(param, "resource_missing", status)


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    key: str | None
    params: Params


@dataclass
class FakeStripe:
    """What it keeps, and the requests that it got."""

    objects: dict[str, Object] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    effects: Counter[str] = field(default_factory=Counter)
    """How many objects were made under each idempotency key."""
    events: list[Object] = field(default_factory=list)
    declines: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(DECLINES))
    page: int = 100
    refuses_to_cancel: bool = False
    url: str = ""
    _faults: list[tuple[str, Fault]] = field(default_factory=list)
    _answers: dict[str, tuple[str, int, Object]] = field(default_factory=dict)
    _count: int = 0
    _is_quiet: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._is_quiet.set()

    # What tests do with it

    def fail_next(self, fault: Fault, path: str = "") -> None:
        """Let the next request whose path has this in it go wrong."""
        self._is_quiet.clear()
        self._faults.append((path, fault))

    async def until_quiet(self) -> None:
        """Wait until all has gone wrong that was to: whoever gave up early may be ahead of this server."""
        assert await asyncio.to_thread(self._is_quiet.wait, PATIENCE_S), f"{self._faults} did not happen"

    def forget_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()
        self._is_quiet.set()

    def forget_all(self) -> None:
        """Begin afresh, at the same address."""
        for kept in (self.objects, self.asked, self.effects, self.events, self._answers):
            kept.clear()
        self.forget_faults()
        self.declines, self.page, self.refuses_to_cancel = dict(DECLINES), 100, False

    def forget_keys(self) -> None:
        """A day passes."""
        self._answers.clear()

    def authenticate(self, intent_id: str, *, successfully: bool = True) -> None:
        """The cardholder does what their bank wants, or fails to."""
        intent = self.objects[intent_id]
        assert intent["status"] == "requires_action"
        intent["next_action"] = None
        last4 = self.objects[intent["payment_method"]]["card"]["last4"]
        if successfully:
            self._collect(intent, WANTS_CARDHOLDER[last4])
        else:
            self._decline(intent, ("payment_intent_authentication_failure", ""), with_charge=False)

    def close_disputes(self, status: str) -> None:
        """The bank decides."""
        for row in self._all("dispute"):
            row["status"] = status
            self._tell("charge.dispute.closed", row)

    def make(self, kind: str, prefix: str, **facts: Any) -> str:
        """An object that somebody made by hand."""
        return str(self._keep(kind, prefix, metadata={}, **facts)["id"])

    def deliveries(self, now: datetime, *, secret: str = WEBHOOK_SECRET) -> list[tuple[bytes, str]]:
        """Every event, signed, twice and in any order."""
        chosen = [event for event in self.events for _ in range(2)]
        random.shuffle(chosen)
        return [sign(json.dumps(event).encode(), now, secret=secret) for event in chosen]

    # The API

    async def answer(self, request: Request) -> Response:
        """Answer a request, or let it go wrong."""
        fault = self._take_fault(request.url.path)
        if fault is Fault.HANGS:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return Response()
        raw = (await request.body()).decode() or request.url.query
        params = dict(parse_qsl(raw, keep_blank_values=True))
        key = request.headers.get("idempotency-key")
        asked = Asked(request.method, request.url.path, key, params)
        self.asked.append(asked)
        if fault is Fault.TOO_MANY:
            return JSONResponse(Refused(429, "invalid_request_error", code="rate_limit").body, 429)
        if fault is Fault.LOCKED:
            return JSONResponse(Refused(409, "invalid_request_error", code="lock_timeout").body, 409)
        if request.headers.get("authorization") != f"Bearer {SECRET_KEY}":
            return JSONResponse(Refused(401, "invalid_request_error", message="Invalid API Key").body, 401)
        status, body, is_repeated = self._do(asked, fault)
        headers = {"Idempotent-Replayed": "true"} if is_repeated else {}
        if fault is Fault.NOT_JSON:
            return PlainTextResponse("<html>Bad gateway</html>", 200)
        if fault is Fault.NOT_AN_OBJECT:
            return JSONResponse(["what?"])
        if fault is Fault.OTHER_AMOUNT:
            body = {**body, "amount": body["amount"] + 10, "amount_received": body["amount"] + 10}
        if fault in (Fault.CUT, Fault.DRIPS):
            return Broken(json.dumps(body).encode(), drops=DROPS if fault is Fault.DRIPS else 0)
        return JSONResponse(body, status, headers)

    def _do(self, asked: Asked, fault: Fault | None) -> tuple[int, Object, bool]:
        fingerprint = hashlib.sha256(json.dumps([asked.path, sorted(asked.params.items())]).encode()).hexdigest()
        if asked.method == "POST" and asked.key in self._answers:
            was, status, body = self._answers[asked.key]
            if was != fingerprint:
                return 400, Refused(400, "idempotency_error").body, False
            return status, body, True
        try:
            status, body = 200, self._route(asked)
        except Refused as refused:
            status, body = refused.status, refused.body
        if fault is Fault.FAILS_AFTER_EFFECT:
            status, body = 500, Refused(500, "api_error").body
        # Nothing is remembered of what was not begun.
        if asked.method == "POST" and asked.key is not None and status not in (400, 404):
            self._answers[asked.key] = fingerprint, status, json.loads(json.dumps(body))
        return status, body, False

    def _take_fault(self, path: str) -> Fault | None:
        for place, (part, fault) in enumerate(self._faults):
            if part in path:
                del self._faults[place]
                if not self._faults:
                    self._is_quiet.set()
                return fault
        return None

    def _route(self, asked: Asked) -> Object:
        for method, pattern, allowed, handler in ROUTES:
            match = re.fullmatch(pattern, asked.path)
            if match is None or method != asked.method:
                continue
            names = {re.sub(r"\[.*", "", name) for name in asked.params}
            if "payment_method_types" in names:
                raise invalid("payment_method_types", "payment_method_types_no_longer_supported")
            if names - allowed:
                raise invalid(min(names - allowed), "parameter_unknown")
            answer = handler(self, asked, *match.groups())
            expanded = "latest_charge" in asked.params.get("expand[0]", "")
            if expanded and answer.get("latest_charge"):
                answer = {**answer, "latest_charge": self.objects[answer["latest_charge"]]}
            return answer
        raise invalid(status=404)

    def _make_customer(self, asked: Asked) -> Object:
        return self._keep("customer", "cus_", asked, metadata=_metadata(asked.params), name=asked.params.get("name"))

    def _update_customer(self, asked: Asked, customer: str) -> Object:
        row = self._get(customer, "customer")
        row["name"] = asked.params["name"]
        return row

    def _make_setup(self, asked: Asked) -> Object:
        self._need(asked.params["customer"], "customer", "customer")
        assert asked.params["allowed_payment_method_types[0]"] == "card"
        return self._keep("setup_intent", "seti_", asked, client_secret=f"seti_{self._count}_secret")

    def _read_method(self, _asked: Asked, token: str) -> Object:
        return self._method(token)

    def _attach(self, asked: Asked, token: str) -> Object:
        customer = self._need(asked.params["customer"], "customer", "customer")["id"]
        method = self._method(token)
        if method["customer"] not in (None, customer):
            raise invalid(code="payment_method_unexpected_state")
        if method["was_detached"]:
            raise invalid(code="payment_method_unexpected_state")
        if method["card"]["last4"] == "0002":
            raise Refused(402, "card_error", code="card_declined", decline_code="generic_decline")
        method["customer"] = customer
        return method

    def _detach(self, _asked: Asked, token: str) -> Object:
        method = self._get(token, "payment_method")
        if method["customer"] is None:
            raise invalid("payment_method", "payment_method_unexpected_state")
        method.update(customer=None, was_detached=True)
        self._tell("payment_method.detached", method)
        return method

    def _charge(self, asked: Asked) -> Object:
        given = asked.params
        currency, amount = given["currency"], int(given["amount"])
        off_session = given.get("off_session") == "true"
        if currency != currency.lower():
            raise invalid("currency")
        if amount <= 0:
            raise invalid("amount", "parameter_invalid_integer")
        if amount < AT_LEAST.get(currency, 0):
            raise invalid("amount", "amount_too_small")
        if (currency in IN_TENS and amount % 10) or (currency in IN_HUNDREDS and amount % 100):
            raise invalid("amount", "invalid_charge_amount_no_decimal_compatible")
        customer = self._need(given["customer"], "customer", "customer")
        method = self._need(given["payment_method"], "payment_method", "payment_method")
        if method["customer"] != customer["id"]:
            raise invalid("payment_method", "payment_method_customer_mismatch")
        assert given["confirm"] == "true"
        assert given["allowed_payment_method_types[0]"] == "card"
        intent = self._keep(
            "payment_intent",
            "pi_",
            asked,
            amount=amount,
            amount_received=0,
            currency=currency,
            customer=customer["id"],
            payment_method=method["id"],
            description=given.get("description"),
            metadata=_metadata(given),
            status="requires_confirmation",
            next_action=None,
            last_payment_error=None,
            latest_charge=None,
        )
        intent["client_secret"] = f"{intent['id']}_secret"
        last4 = method["card"]["last4"]
        if last4 in WANTS_CARDHOLDER and not off_session:
            intent["status"] = "requires_action"
            intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
            self._tell("payment_intent.requires_action", intent)
            return intent
        wants = ("authentication_required", "authentication_required") if last4 in WANTS_CARDHOLDER else None
        self._collect(intent, wants or self.declines.get(last4))
        if intent["status"] == "requires_payment_method":
            raise Refused(402, "card_error", **intent["last_payment_error"], payment_intent=dict(intent))
        return intent

    def _collect(self, intent: Object, decline: tuple[str, str] | None) -> None:
        if decline is not None:
            self._decline(intent, decline, with_charge=True)
            return
        charge = self._charge_of(intent, "succeeded")
        intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
        self._tell("payment_intent.succeeded", intent)
        if self.objects[intent["payment_method"]]["card"]["last4"] == "0259":
            facts = {"amount": intent["amount"], "currency": intent["currency"], "charge": charge["id"]}
            dispute = self._keep("dispute", "dp_", payment_intent=intent["id"], status="needs_response", **facts)
            self._tell("charge.dispute.created", dispute)

    def _decline(self, intent: Object, decline: tuple[str, str], *, with_charge: bool) -> None:
        code, decline_code = decline
        error = {"code": code, "decline_code": decline_code or None}
        intent.update(status="requires_payment_method", last_payment_error=error)
        if with_charge:
            charge = self._charge_of(intent, "failed", failure_code=code, outcome={"reason": decline_code})
            intent["latest_charge"] = charge["id"]
        self._tell("payment_intent.payment_failed", intent)

    def _charge_of(self, intent: Object, status: str, **more: Any) -> Object:
        facts = {name: intent[name] for name in ("amount", "currency", "customer", "metadata")}
        return self._keep("charge", "ch_", payment_intent=intent["id"], status=status, **facts, **more)

    def _list_intents(self, asked: Asked) -> Object:
        self._need(asked.params["customer"], "customer", "customer")
        return self._list("payment_intent", asked, customer=asked.params["customer"])

    def _read(self, asked: Asked, found: str) -> Object:
        kind = asked.path.split("/")[2].removesuffix("s")
        return self._get(found, kind)

    def _cancel(self, _asked: Asked, found: str) -> Object:
        intent = self._get(found, "payment_intent")
        if self.refuses_to_cancel or intent["status"] not in (
            "requires_payment_method",
            "requires_action",
            "requires_confirmation",
        ):
            raise invalid(code="payment_intent_unexpected_state")
        intent.update(status="canceled", next_action=None)
        self._tell("payment_intent.canceled", intent)
        return intent

    def _refund(self, asked: Asked) -> Object:
        intent = self._need(asked.params["payment_intent"], "payment_intent", "payment_intent")
        amount = int(asked.params["amount"])
        if intent["status"] != "succeeded":
            raise invalid(code="payment_intent_unexpected_state")
        left = intent["amount"] - sum(
            row["amount"]
            for row in self._all("refund")
            if row["payment_intent"] == intent["id"] and row["status"] != "failed"
        )
        if left == 0:
            raise invalid(code="charge_already_refunded")
        if amount > left:
            raise invalid("amount", "refund_amount_exceeds_charge")
        last4 = self.objects[intent["payment_method"]]["card"]["last4"]
        refund = self._keep(
            "refund",
            "re_",
            asked,
            amount=amount,
            currency=intent["currency"],
            charge=intent["latest_charge"],
            payment_intent=intent["id"],
            status="pending" if last4 == "7726" else "succeeded",
            metadata=_metadata(asked.params),
        )
        self._tell("refund.created", refund)
        return refund

    def _read_refund(self, _asked: Asked, found: str) -> Object:
        """The bank is done with a refund by the time that somebody asks after it."""
        refund = self._get(found, "refund")
        last4 = self.objects[self.objects[refund["payment_intent"]]["payment_method"]]["card"]["last4"]
        before = refund["status"]
        if before == "pending":
            refund["status"] = "succeeded"
        elif last4 == "5126":
            refund["status"] = "failed"
        if refund["status"] != before:
            self._tell("refund.updated", refund)
        return refund

    def _list_refunds(self, asked: Asked) -> Object:
        self._need(asked.params["payment_intent"], "payment_intent", "payment_intent")
        return self._list("refund", asked, payment_intent=asked.params["payment_intent"])

    def _list(self, kind: str, asked: Asked, **where: str) -> Object:
        rows = [row for row in reversed(self._all(kind)) if all(row.get(name) == it for name, it in where.items())]
        after = asked.params.get("starting_after")
        if after is not None:
            rows = rows[[row["id"] for row in rows].index(after) + 1 :]
        size = min(int(asked.params.get("limit", 10)), self.page)
        return {"object": "list", "url": asked.path, "data": rows[:size], "has_more": len(rows) > size}

    def _method(self, token: str) -> Object:
        """A payment method; the published token of a test card is a new one each time."""
        if token not in CARDS:
            return self._get(token, "payment_method")
        card = {"brand": "visa", "last4": CARDS[token], "exp_month": 12, "exp_year": 2030}
        return self._keep("payment_method", "pm_", type="card", card=card, customer=None, was_detached=False)

    def _keep(self, kind: str, prefix: str, asked: Asked | None = None, **facts: Any) -> Object:
        self._count += 1
        row: Object = {"id": f"{prefix}{self._count:024}", "object": kind, "livemode": False, **facts}
        self.objects[row["id"]] = row
        if asked is not None and asked.key is not None:
            self.effects[asked.key] += 1
        return row

    def _all(self, kind: str) -> list[Object]:
        return [row for row in self.objects.values() if row["object"] == kind]

    def _get(self, found: str, kind: str) -> Object:
        row = self.objects.get(found)
        if row is None or row["object"] != kind:
            raise missing("id", 404)
        return row

    def _need(self, found: str, kind: str, param: str) -> Object:
        row = self.objects.get(found)
        if row is None or row["object"] != kind:
            raise missing(param)
        return row

    def _tell(self, kind: str, subject: Object) -> None:
        self._count += 1
        data = {"object": json.loads(json.dumps(subject))}
        self.events.append(
            {"id": f"evt_{self._count:024}", "object": "event", "type": kind, "livemode": False, "data": data}
        )


Handler = Callable[..., Object]
LISTED = {"limit", "starting_after", "expand"}
ROUTES: list[tuple[str, str, set[str], Handler]] = [
    ("POST", "/v1/customers", {"name", "metadata"}, FakeStripe._make_customer),
    ("POST", "/v1/customers/([^/]+)", {"name"}, FakeStripe._update_customer),
    (
        "POST",
        "/v1/setup_intents",
        {"customer", "usage", "allowed_payment_method_types"},
        FakeStripe._make_setup,
    ),
    ("GET", "/v1/payment_methods/([^/]+)", set(), FakeStripe._read_method),
    ("POST", "/v1/payment_methods/([^/]+)/attach", {"customer"}, FakeStripe._attach),
    ("POST", "/v1/payment_methods/([^/]+)/detach", set(), FakeStripe._detach),
    (
        "POST",
        "/v1/payment_intents",
        {
            "allowed_payment_method_types",
            "amount",
            "confirm",
            "currency",
            "customer",
            "description",
            "metadata",
            "off_session",
            "payment_method",
        },
        FakeStripe._charge,
    ),
    ("GET", "/v1/payment_intents", {"customer", *LISTED}, FakeStripe._list_intents),
    ("GET", "/v1/payment_intents/([^/]+)", {"expand"}, FakeStripe._read),
    ("POST", "/v1/payment_intents/([^/]+)/cancel", {"cancellation_reason", "expand"}, FakeStripe._cancel),
    ("POST", "/v1/refunds", {"payment_intent", "amount", "metadata"}, FakeStripe._refund),
    ("GET", "/v1/refunds", {"payment_intent", *LISTED}, FakeStripe._list_refunds),
    ("GET", "/v1/refunds/([^/]+)", {"expand"}, FakeStripe._read_refund),
    ("GET", "/v1/disputes/([^/]+)", {"expand"}, FakeStripe._read),
    ("GET", "/v1/charges/([^/]+)", {"expand"}, FakeStripe._read),
]


class Broken(Response):
    """An answer that ends too early, and may take long for that."""

    def __init__(self, body: bytes, *, drops: int) -> None:
        super().__init__(body)
        self.drops = drops

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Begin the answer, go on with drops (JSON allows spaces), and leave."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000")]})
        await send({"type": "http.response.body", "body": self.body[:20], "more_body": True})
        for _ in range(self.drops):
            await asyncio.sleep(DROP_EVERY_S)
            await send({"type": "http.response.body", "body": b" ", "more_body": True})


def sign(body: bytes, now: datetime, *, secret: str = WEBHOOK_SECRET) -> tuple[bytes, str]:
    """A body with the header that proves it."""
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(now.timestamp()))
    return body, str(header)


def _metadata(params: Params) -> Params:
    found = {}
    for name, value in params.items():
        match = re.fullmatch(r"metadata\[(.+)\]", name)
        if match:
            found[match[1]] = value
    return found


@contextmanager
def serve_fake() -> Iterator[FakeStripe]:
    """The fake behind a server of its own."""
    fake = FakeStripe()
    app = Starlette(routes=[Route("/{path:path}", fake.answer, methods=["GET", "POST", "DELETE"])])
    # It breaks answers off, which the server would report.
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield fake
        finally:
            server.should_exit = True
            thread.join()
