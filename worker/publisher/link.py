"""One connection to a provider: writes a request and reads its response.

The parser is llhttp (`httptools`). It exposes what it has parsed before an error, and we use that: once the status line
was read, it decides the outcome, whatever follows it and however the network splits it. Otherwise an update that was
accepted with a malformed response would be sent again.
"""

import asyncio
import time
from typing import cast

import httptools
from httptools import HttpParserError, HttpParserInvalidStatusError, HttpParserUpgrade

from worker.model.exchange import Fault, HttpResponse

HEAD_MAX_BYTES = 64 * 1024
"""At most the body's limit plus this is read of one response, interim responses and framing included."""

_NO_BYTES = b""
_TEXT = {None, "", "identity"}
"""Content encodings that need no decoding; we accept no others."""


class Link(asyncio.Protocol):
    """Carries one request at a time, each with a new parser, which must not remember the previous status.

    Also a `deadlines.Expirable`, both during an exchange and while idle.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser
        self._written = self._ended_well = False
        self._status = self._room = self._body_room = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._why = ""
        self._deadline_s = 0.0
        self.made_at = time.monotonic()
        self.idle_until = 0.0
        """Until when it may wait for its next request."""
        self.home: dict[Link, None] | None = None
        """The pool of idle connections that contains it."""

    # --- one exchange ---

    def begin(self, body_max_bytes: int, deadline_s: float) -> "asyncio.Future[None]":
        """Prepares for a request. The returned future completes when `outcome` is known, and never raises."""
        self._written = self._ended_well = False
        self._status, self._headers, self._body = 0, {}, bytearray()
        self._deadline_s = deadline_s
        self._body_room, self._room = body_max_bytes, body_max_bytes + HEAD_MAX_BYTES
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # safe, because we do not forward the response to anybody
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._answered = self._loop.create_future()
        return self._answered

    def write(self, request: bytes) -> None:
        """Passes as much of the request to the kernel as it accepts before returning."""
        self._written = True
        assert self._transport is not None
        self._transport.write(request)

    def outcome(self) -> HttpResponse | Fault:
        """What is known about the request: the response, or why there is none."""
        if not self._status:
            return Fault(self._written, self._why)
        encoding = self._headers.get("content-encoding")
        # A server may compress the body although we do not accept that: then it is dropped, and the status counts.
        body = bytes(self._body) if encoding in _TEXT else _NO_BYTES
        return HttpResponse(self._status, self._headers, body)

    def end(self) -> bool:
        """Ends the exchange; returns whether the connection may be reused."""
        self._answered = None
        if not self._written:
            return self.is_open
        return (
            self._ended_well
            and self._transport is not None
            and not self._transport.is_closing()
            and self._status < 500
            and self._status not in (407, 421)
            # The response may have arrived before the whole request was sent.
            and self._transport.get_write_buffer_size() == 0
        )

    def keeps_for_s(self) -> float | None:
        """The idle timeout that the provider announces (`Keep-Alive: timeout=…`)."""
        said = self._headers.get("keep-alive")
        if said is None:
            return None
        _, found, rest = said.lower().partition("timeout=")
        digits = rest.split(",", 1)[0].strip()
        return float(digits[:9]) if found and digits.isascii() and digits.isdigit() else None

    @property
    def is_open(self) -> bool:
        """Whether a request can be written."""
        return self._transport is not None and not self._transport.is_closing()

    def expire(self) -> None:
        """The deadline of the exchange, or of the idle connection, has passed."""
        self._stop(f"no response within {self._deadline_s:g} s")

    def abort(self) -> None:
        """Closes the connection immediately and drops everything that was not sent yet."""
        if self._transport is not None:
            self._transport.abort()

    # --- callbacks of the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            self._ended_well = False
            self.abort()  # unsolicited bytes, which would be taken for the response to the next request
            return
        try:
            self._parser.feed_data(data)
        except HttpParserInvalidStatusError as error:
            self._parser = httptools.HttpResponseParser(
                self
            )  # a fresh one: the broken one would report the first three digits as the status
            self._stop(f"not HTTP: {error}")
        except (HttpParserError, HttpParserUpgrade) as error:
            self._stop(f"not HTTP: {error}")
        self._room -= len(data)
        if self._room < 0:
            self._stop("the response does not end")

    def connection_lost(self, exc: Exception | None) -> None:
        said = exc.strerror if isinstance(exc, OSError) else None
        self._stop(f"the connection closed without a response: {said or 'closed by the server'}")
        self._transport = None
        if self.home is not None:
            self.home.pop(self, None)

    def _stop(self, why: str) -> None:
        """Stops reading. If the status line has arrived, it decides, even without all headers."""
        if self._answered is not None and not self._answered.done():
            if not self._status and _is_final(status := self._parser.get_status_code()):
                self._status = status
            self._why = why
            self._answered.set_result(None)
        self._ended_well = False
        self.abort()

    # --- callbacks of the parser ---

    def on_message_begin(self) -> None:
        """A second response was not asked for: the connection must not be reused."""
        if self._is_answered():
            self._ended_well = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Also called for trailers, which are ignored: they come after the headers are complete."""
        if not self._status:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Accepts a final status; from now on it decides the outcome."""
        if self._is_answered():
            return
        status = self._parser.get_status_code()
        if _is_final(status):
            self._status = status
        elif status < 100:
            self._stop(f"not HTTP: {status} is not a status")

    def on_body(self, data: bytes) -> None:
        """Appends to the body, up to its limit; beyond it the response counts as complete."""
        if self._is_answered():
            return
        self._body += data[: self._body_room]
        self._body_room -= len(data)
        if self._body_room < 0:
            self._answer()

    def on_message_complete(self) -> None:
        """The end of a final response, or of an interim one (1xx)."""
        if self._is_answered():
            return
        if self._status:
            self._answer()
            self._ended_well = self._parser.should_keep_alive()
        else:
            self._headers = {}

    def _is_answered(self) -> bool:
        return self._answered is None or self._answered.done()

    def _answer(self) -> None:
        assert self._answered is not None
        self._answered.set_result(None)


def _is_final(status: int) -> bool:
    """101 is final, because no HTTP follows it; after any other 1xx the final response is still to come."""
    return 200 <= status <= 999 or status == 101
