"""Webhooks: the operator's addresses are told when a job has succeeded, failed or was cancelled.

What is to be told is written in the transaction that ends the job (:func:`record_in`), so nothing is lost when a server
is killed; the gateway that works on the jobs sends it, again and again for a day, until the receiver answers 2xx. So it
comes at least once, each time with the same ``webhook-id``. Signed as https://www.standardwebhooks.com has it, which is
what ``client.webhooks.unwrap`` of OpenAI's SDK verifies. The database has a hash of an address, which may hold a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import logging
import os
import random
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)

from ownchat import __version__
from ownchat.artifacts import owner_only, write_atomic
from ownchat.errors import UserError
from ownchat.serve.database import Database, metadata
from ownchat.serve.logs import log
from ownchat.serve.metrics import Metrics
from ownchat.serve.settings import Settings

VARIABLE = "OWNCHAT_WEBHOOK_SECRET"
PREFIX = "whsec_"
SECRET_BYTES = (24, 64)  # as the specification has them
DAY_SECONDS = 86_400.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 7200.0  # seconds after a failure; the pause doubles each time
LONGEST_REST = 300.0  # seconds that an address is left alone after failures in a row, whatever else is due to it
DELIVERY_SECONDS = 20.0  # for all of one attempt: to resolve the name, to connect, and what is said
LOOK_SECONDS = 1.0  # between two looks for what is to be sent
KNOWN_SECONDS = 3600.0  # between two notes that an address is still wanted
AT_ONCE = 20  # deliveries of one look

Address = tuple[int, int, int, str, Any]  # as socket.getaddrinfo has it

_receivers = Table(
    "ownchat_webhook_receivers",
    metadata,
    Column("id", String(64), primary_key=True),  # hash of the address
    Column("seen", Float, nullable=False),  # when a gateway last had it among its own
)
_deliveries = Table(
    "ownchat_webhook_deliveries",  # those that have not arrived
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event", String(64), nullable=False),
    Column("receiver", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("job", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Float, nullable=False),
    UniqueConstraint("event", "receiver"),
    Index("ownchat_webhook_deliveries_due", "receiver", "due"),
)


# ------------------------------------------------------------------------------------------- what is to be told


def record_in(connection: Connection, job: str, status: str) -> None:
    """As a part of the transaction that gives a job its last status: every receiver is to be told."""
    wanted = _receivers.c.seen > time.time() - DAY_SECONDS
    receivers = connection.execute(select(_receivers.c.id).where(wanted)).scalars().all()
    if not receivers:
        return
    type, now = f"fine_tuning.job.{status}", int(time.time())
    event = f"evt_{hashlib.sha256(f'{job}/{type}'.encode()).hexdigest()[:32]}"
    row = {"event": event, "type": type, "job": job, "created": now, "attempts": 0, "due": float(now)}
    connection.execute(insert(_deliveries), [{**row, "receiver": receiver} for receiver in receivers])


def body_of(event: str, type: str, created: int, job: str) -> bytes:
    """The event as OpenAI has it: ids and a time, no word of anybody's text."""
    value = {"id": event, "object": "event", "created_at": created, "type": type, "data": {"id": job}}
    return json.dumps(value, separators=(",", ":")).encode()


def signed(secret: str, id: str, body: bytes, timestamp: int) -> dict[str, str]:
    """The headers that prove who sent it, and when.

    >>> sorted(signed("whsec_" + "A" * 32, "evt_1", b"{}", 1700000000))
    ['webhook-id', 'webhook-signature', 'webhook-timestamp']
    """
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def pause_after(attempts: int) -> float:
    """Seconds until the next attempt, a fifth more or less so that many do not come at once."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 20)) * random.uniform(0.8, 1.2)


def secret_path(home: Path) -> Path:
    """Where the secret of a home is kept."""
    return home / "server" / "webhook-secret"


def secret_of(home: Path) -> tuple[str, bool]:
    """The secret that receivers verify with, and whether it was made now: ``OWNCHAT_WEBHOOK_SECRET``, or the home's.

    Raises :class:`~ownchat.errors.UserError` for one that is none, without repeating it.
    """
    if given := os.environ.get(VARIABLE):
        return _checked(given, VARIABLE), False
    path = secret_path(home)
    try:
        return _checked(path.read_text(encoding="utf-8", errors="replace").strip(), str(path)), False
    except FileNotFoundError:
        pass
    made = PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    with owner_only():
        write_atomic(path, made + "\n")
    return made, True


def _checked(text: str, where: str) -> str:
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
        least, most = SECRET_BYTES
        raise UserError(
            f"not a secret for webhooks: {PREFIX} and {least} to {most} bytes in base64 are needed", where=where,
            fix=f"make one: echo {PREFIX}$(openssl rand -base64 32)",
        )  # fmt: skip
    return text


# ------------------------------------------------------------------------------------------------------- sending


class Webhooks:
    """Sends what is to be told, a thread for each address, while ``leads()`` says that this gateway is the one."""

    def __init__(self, database: Database, settings: Settings, metrics: Metrics, leads: Callable[[], bool]) -> None:
        self._database, self._metrics, self._leads = database, metrics, leads
        self._home = settings.home
        self._urls = {hashlib.sha256(url.encode()).hexdigest(): url for url in settings.webhooks}
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        # By receiver, each used by its own thread alone; close() hangs up and cancels.
        self._open: dict[str, socket.socket] = {}
        self._lookups: dict[str, Future[Sequence[Address]]] = {}
        self._rests: dict[str, tuple[int, float]] = {}  # failures in a row, and until when (monotonic) it is left alone

    def start(self) -> None:
        """Note the addresses, so that jobs that end from now on are told to them, and begin to send."""
        self._note()
        if not self._urls:
            return
        secret, _ = secret_of(self._home)
        for receiver, url in self._urls.items():
            arguments = (receiver, url, secret)
            self._threads.append(threading.Thread(target=self._work, args=arguments, name="webhooks", daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Hang up; what did not arrive is sent by the next server."""
        self._ending.set()
        for lookup in list(self._lookups.values()):
            lookup.cancel()
        for connected in list(self._open.values()):
            _hang_up(connected)
        end = time.monotonic() + DELIVERY_SECONDS + 5
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _note(self) -> None:
        """These addresses are wanted; those that nobody wants any more, and what was for them, go."""
        now = time.time()
        with self._database.locked() as connection:
            connection.execute(delete(_receivers).where(_receivers.c.seen < now - DAY_SECONDS))
            left = select(_receivers.c.id)
            connection.execute(delete(_deliveries).where(_deliveries.c.receiver.not_in(left)))
            known = set(connection.execute(select(_receivers.c.id)).scalars())
            for id in self._urls:
                if id in known:
                    connection.execute(update(_receivers).where(_receivers.c.id == id).values(seen=now))
                else:
                    connection.execute(insert(_receivers).values(id=id, seen=now))

    def _work(self, receiver: str, url: str, secret: str) -> None:
        noted = time.monotonic()
        while not self._ending.is_set():
            try:
                if time.monotonic() - noted > KNOWN_SECONDS:
                    self._note()
                    noted = time.monotonic()
                if self._leads():
                    self._round(receiver, url, secret)
                else:
                    self._metrics.webhooks_waiting(receiver, 0)  # that is for the other gateway to tell
            except Exception as error:  # a database that is away for a moment ends no server
                log("webhooks_failed", level=logging.ERROR, error=error)
            self._ending.wait(LOOK_SECONDS)

    def _round(self, receiver: str, url: str, secret: str) -> None:
        """Send what is due. After a failure the rest waits as well, as it would fare no better: each failure in a row
        doubles the time, up to :data:`LONGEST_REST`."""
        rows, waiting = self._due(receiver)
        self._metrics.webhooks_waiting(receiver, waiting)
        if time.monotonic() < self._rests.get(receiver, (0, 0.0))[1]:
            return
        for row in rows:
            if self._ending.is_set() or not self._leads():
                return
            if not self._attempt(row, url, secret):
                failures = self._rests.get(receiver, (0, 0.0))[0] + 1
                self._rests[receiver] = failures, time.monotonic() + min(LONGEST_REST, pause_after(failures))
                return
            self._rests.pop(receiver, None)

    def _due(self, receiver: str) -> tuple[Sequence[Row[Any]], int]:
        mine = _deliveries.c.receiver == receiver
        with self._database.read() as connection:
            waiting = connection.execute(select(func.count()).select_from(_deliveries).where(mine)).scalar_one()
            due = select(_deliveries).where(mine, _deliveries.c.due <= time.time()).order_by(_deliveries.c.seq)
            return (connection.execute(due.limit(AT_ONCE)).all() if waiting else ()), waiting

    def _attempt(self, row: Row[Any], url: str, secret: str) -> bool:
        body, now = body_of(row.event, row.type, row.created, row.job), time.time()
        fault = self._send(row.receiver, url, body, signed(secret, row.event, body, int(now)))
        if fault is not None and self._ending.is_set():
            return False  # we hung up ourselves
        attempts, told = row.attempts + 1, {"job": row.job, "type": row.type, "host": urlsplit(url).hostname}
        this = _deliveries.c.seq == row.seq
        if fault is None:
            with self._database.begin() as connection:
                connection.execute(delete(_deliveries).where(this))
            self._metrics.webhook("delivered")
            log("webhook_delivered", attempts=attempts, **told)
            return True
        if now - row.created > DAY_SECONDS:
            with self._database.begin() as connection:
                connection.execute(delete(_deliveries).where(this))
            self._metrics.webhook("given_up")
            log("webhook_given_up", level=logging.ERROR, attempts=attempts, because=fault, **told)
            return False
        pause = pause_after(attempts)
        with self._database.begin() as connection:
            connection.execute(update(_deliveries).where(this).values(attempts=attempts, due=time.time() + pause))
        self._metrics.webhook("failed")
        log("webhook_failed", level=logging.WARNING, attempts=attempts, because=fault, again=round(pause), **told)
        return False

    def _send(self, receiver: str, url: str, body: bytes, headers: dict[str, str]) -> str | None:
        """One POST; none, or why it did not arrive. No redirect is followed, no proxy asked, no answer's body read."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)  # "::1" has no port
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {**headers, "content-type": "application/json", "user-agent": f"ownchat/{__version__}"}
        watchdog: threading.Timer | None = None
        connection: http.client.HTTPConnection | None = None
        end = time.monotonic() + DELIVERY_SECONDS
        try:
            if (found := self._addresses(receiver, host, port, end)) is None:
                return "its name was not resolved in time"
            of_scheme = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = of_scheme(host, port)
            connection.sock = self._connected(receiver, found, end)
            connection.sock.settimeout(DELIVERY_SECONDS)
            if parts.scheme == "https":
                connection.sock = ssl.create_default_context().wrap_socket(
                    connection.sock, server_hostname=host, do_handshake_on_connect=False
                )
            self._open[receiver] = connection.sock
            if self._ending.is_set():
                return "the server ends"
            left = max(0.0, end - time.monotonic())
            watchdog = threading.Timer(left, _hang_up, (connection.sock,))  # a head that comes in drops
            watchdog.daemon = True
            watchdog.start()
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request("POST", path, body, {**headers, "connection": "close"})
            status = connection.getresponse().status
            return None if 200 <= status < 300 else f"status {status}"
        except CancelledError:
            return "the server ends"
        except (OSError, ValueError, http.client.HTTPException) as error:
            return type(error).__name__  # its message may hold what the receiver wrote
        finally:
            if watchdog is not None:
                watchdog.cancel()
            self._open.pop(receiver, None)
            if connection is not None:
                connection.close()

    def _addresses(self, receiver: str, host: str, port: int, end: float) -> Sequence[Address] | None:
        """What the name resolves to; none: not before ``end``.

        The system's resolver takes as long as it likes and cannot be stopped, so it has a thread, which is left behind
        then. The next attempt waits for the same one, so there is never more than one of a receiver.
        """
        lookup = self._lookups.get(receiver)
        if lookup is None or lookup.done():  # one that ended since is of another time
            lookup = Future()
            threading.Thread(target=_resolve, args=(lookup, host, port), name="webhook name", daemon=True).start()
            self._lookups[receiver] = lookup
        if self._ending.is_set():
            lookup.cancel()
        try:
            return lookup.result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            if lookup.done():  # what the resolver itself says
                raise
            return None

    def _connected(self, receiver: str, addresses: Sequence[Address], end: float) -> socket.socket:
        """To the first address that takes it; each gets its share of the time that is left, as does the answer."""
        fault = OSError("it has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            share = (end - time.monotonic()) / (len(addresses) - number + 1)
            made: socket.socket | None = None
            try:
                made = self._open[receiver] = socket.socket(family, kind, protocol)
                if self._ending.is_set():
                    made.close()
                    raise CancelledError
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.settimeout(max(0.01, share))
                made.connect(address)
                return made
            except OSError as error:
                fault = error
                if made is not None:
                    made.close()
        raise fault


def _resolve(lookup: Future[Sequence[Address]], host: str, port: int) -> None:
    with suppress(InvalidStateError):  # cancelled: the server ends
        try:
            lookup.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # of _send to judge; names that no server can have are a UnicodeError
            lookup.set_exception(error)


def _hang_up(connected: socket.socket) -> None:
    with suppress(OSError):  # it is over already
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # that of TLS would first make it a socket without TLS
