"""One connection to a provider: a request is written to it, and its answer is read.

The parser is llhttp (`httptools`). It tells what it has read before it gives up, and so do we: a status line that was
read decides, whatever follows it, and however the network cuts it into pieces. Only then a provider that took an
update and said so in odd words is not asked again.
"""

import asyncio
import time
from typing import cast

import httptools
from httptools import HttpParserError, HttpParserInvalidStatusError, HttpParserUpgrade

from worker.model.exchange import Fault, HttpResponse

HEAD_MAX_BYTES = 64 * 1024
"""More than the body's cap and this is not read of one answer, interim answers and framing included."""

_NO_BYTES = b""
_TEXT = {None, "", "identity"}
"""Encodings of a body that can be read as it comes; we ask for no other."""


class Link(asyncio.Protocol):
    """One request after the other, each with a parser of its own: it must not know the last one's status.

    Also `deadlines.Expirable`, under way and idle.
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
        """How long it may wait for its next request."""
        self.home: dict[Link, None] | None = None
        """Where it waits."""

    # --- one exchange ---

    def begin(self, body_max_bytes: int, deadline_s: float) -> "asyncio.Future[None]":
        """Makes all ready for a request; what it gives is done when `outcome` is known, and never raises."""
        self._written = self._ended_well = False
        self._status, self._headers, self._body = 0, {}, bytearray()
        self._deadline_s = deadline_s
        self._body_room, self._room = body_max_bytes, body_max_bytes + HEAD_MAX_BYTES
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what can be understood is: it is not passed on to anybody
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._answered = self._loop.create_future()
        return self._answered

    def write(self, request: bytes) -> None:
        """Hands it to the kernel, or what it takes of it, before it returns."""
        self._written = True
        assert self._transport is not None
        self._transport.write(request)

    def outcome(self) -> HttpResponse | Fault:
        """What is known of the request."""
        if not self._status:
            return Fault(self._written, self._why)
        encoding = self._headers.get("content-encoding")
        # A page that was compressed all the same holds no words for anybody.
        body = bytes(self._body) if encoding in _TEXT else _NO_BYTES
        return HttpResponse(self._status, self._headers, body)

    def end(self) -> bool:
        """No more is wanted of the exchange; whether another may follow on this connection."""
        self._answered = None
        if not self._written:
            return self.is_open
        return (
            self._ended_well
            and self._transport is not None
            and not self._transport.is_closing()
            and self._status < 500
            and self._status not in (407, 421)
            # The answer may have come before all was said.
            and self._transport.get_write_buffer_size() == 0
        )

    def keeps_for_s(self) -> float | None:
        """How long the provider says it keeps an idle connection."""
        said = self._headers.get("keep-alive")
        if said is None:
            return None
        _, found, rest = said.lower().partition("timeout=")
        digits = rest.split(",", 1)[0].strip()
        return float(digits[:9]) if found and digits.isascii() and digits.isdigit() else None

    @property
    def is_open(self) -> bool:
        """Whether a request can be written to it."""
        return self._transport is not None and not self._transport.is_closing()

    def expire(self) -> None:
        """`Expirable`."""
        self._stop(f"no answer within {self._deadline_s:g} s")

    def abort(self) -> None:
        """Closes it at once: what has not left yet is not to leave any more."""
        if self._transport is not None:
            self._transport.abort()

    # --- what the loop tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            self._ended_well = False
            self.abort()  # it speaks unasked: that would be taken for the answer to the next request
            return
        try:
            self._parser.feed_data(data)
        except HttpParserInvalidStatusError as error:
            self._parser = httptools.HttpResponseParser(self)  # the first three of its digits are no status
            self._stop(f"not HTTP: {error}")
        except (HttpParserError, HttpParserUpgrade) as error:
            self._stop(f"not HTTP: {error}")
        self._room -= len(data)
        if self._room < 0:
            self._stop("the answer has no end")

    def connection_lost(self, exc: Exception | None) -> None:
        said = exc.strerror if isinstance(exc, OSError) else None
        self._stop(f"the connection ended without an answer: {said or 'closed by the other side'}")
        self._transport = None
        if self.home is not None:
            self.home.pop(self, None)

    def _stop(self, why: str) -> None:
        """Reads nothing more: the status decides, if it has come, headers or not."""
        if self._answered is not None and not self._answered.done():
            if not self._status and _is_final(status := self._parser.get_status_code()):
                self._status = status
            self._why = why
            self._answered.set_result(None)
        self._ended_well = False
        self.abort()

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        """An answer; a second one was not asked for."""
        if self._is_answered():
            self._ended_well = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers, too, which are left out: they come after the end of the headers."""
        if not self._status:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The status counts from here on."""
        if self._is_answered():
            return
        status = self._parser.get_status_code()
        if _is_final(status):
            self._status = status
        elif status < 100:
            self._stop(f"not HTTP: {status} is no status")

    def on_body(self, data: bytes) -> None:
        """A part of it."""
        if self._is_answered():
            return
        self._body += data[: self._body_room]
        self._body_room -= len(data)
        if self._body_room < 0:
            self._answer()

    def on_message_complete(self) -> None:
        """The end of an answer, or of one that only says that it is to come."""
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
    """After 101 nothing comes any more that is HTTP; other 1xx say that the answer is still to come."""
    return 200 <= status <= 999 or status == 101
