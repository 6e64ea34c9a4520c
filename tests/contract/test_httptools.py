"""What `worker/publisher/link.py` leans on in httptools: an upgrade that changes one is red here."""

from contextlib import suppress
from itertools import pairwise

import httptools
import pytest
from httptools import HttpParserError, HttpParserInvalidStatusError, HttpParserUpgrade


class Parsed:
    """Notes what the parser tells."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """Notes it."""
        self.told.append("begin")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Notes it."""
        self.told.append((name, value))

    def on_headers_complete(self) -> None:
        """Notes the status."""
        self.told.append(self.parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        """Notes it."""
        self.told.append(data)

    def on_message_complete(self) -> None:
        """Notes whether the connection may go on."""
        self.told.append(self.parser.should_keep_alive())


@pytest.mark.parametrize(
    "rest", [b"X Y: a\r\n\r\n", b"X: a\x00b\r\n\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"]
)
def test_status_is_known_when_the_headers_are_broken(rest: bytes) -> None:
    """The status line that was read decides (`Link._stop`)."""
    parsed = Parsed()
    with pytest.raises(HttpParserError):
        parsed.parser.feed_data(b"HTTP/1.1 204 No Content\r\n" + rest)
    assert parsed.parser.get_status_code() == 204


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 ", b"HTTP/1.1 2", b"HTTP/1.1 20"])
def test_status_that_was_not_read_is_none(begun: bytes) -> None:
    """Less than three digits are less than 100 (`Link._stop`)."""
    parsed = Parsed()
    parsed.parser.feed_data(begun)
    assert parsed.parser.get_status_code() < 100


@pytest.mark.parametrize("line", [b"HTTP/1.1 2045 X\r\n", b"HTTP/1.1 20 X\r\n", b"HTTP/1.1 2x4 X\r\n"])
def test_status_of_another_length_is_its_own_error(line: bytes) -> None:
    """So the digits that were read count for nothing (`Link.data_received`)."""
    parsed = Parsed()
    with pytest.raises(HttpParserInvalidStatusError):
        parsed.parser.feed_data(line)


def test_parser_remembers_the_last_status() -> None:
    """Why each request gets a parser of its own: garbage after a 204 is not another 204 (`Link.begin`)."""
    parsed = Parsed()
    parsed.parser.feed_data(b"HTTP/1.1 204 No Content\r\n\r\n")
    with pytest.raises(HttpParserError):
        parsed.parser.feed_data(b"garbage")
    assert parsed.parser.get_status_code() == 204


@pytest.mark.parametrize("header", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body_ends_with_its_headers(status: int, header: bytes) -> None:
    """Whatever they announce (`Link.on_message_complete`)."""
    parsed = Parsed()
    parsed.parser.feed_data(b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, header))
    assert parsed.told[-2:] == [status, True]


@pytest.mark.parametrize("more", [b"hello", b"0\r\n\r\n", b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"])
def test_more_than_an_answer_begins_another(more: bytes) -> None:
    """`on_message_begin` comes before anything else is said of what follows an answer (`Link.on_message_begin`)."""
    parsed = Parsed()
    with suppress(HttpParserError):
        parsed.parser.feed_data(b"HTTP/1.1 204 No Content\r\n\r\n" + more)
    assert parsed.told[:4] == ["begin", 204, True, "begin"]


def test_trailers_come_after_the_headers() -> None:
    """They are no headers (`Link.on_header`)."""
    parsed = Parsed()
    parsed.parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n")
    assert parsed.told == ["begin", (b"Transfer-Encoding", b"chunked"), 200, b"ok", (b"X", b"y"), True]


def test_switch_of_protocols_is_complete() -> None:
    """101 is told whole before the parser steps back (`Link.data_received`)."""
    parsed = Parsed()
    with pytest.raises(HttpParserUpgrade):
        parsed.parser.feed_data(b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    assert parsed.told[-2:] == [101, True]


def test_leniencies() -> None:
    """What they are for: a folded header, a control character, line feeds alone (`Link.begin`)."""
    parsed = Parsed()
    parsed.parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
    parsed.parser.feed_data(b"HTTP/1.1 429 X\nX: a\n b\nY: \x01\nRetry-After: 5\nContent-Length: 0\n\n")
    assert (b"Retry-After", b"5") in parsed.told
    assert parsed.told[-2:] == [429, True]


def test_pieces_are_joined() -> None:
    """A header that comes in pieces is told once, and whole (`Link.on_header`)."""
    parsed = Parsed()
    answer = b"HTTP/1.1 200 OK\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
    for begin, end in pairwise(range(len(answer) + 1)):
        parsed.parser.feed_data(answer[begin:end])
    assert parsed.told == ["begin", (b"Retry-After", b"120"), (b"Content-Length", b"0"), 200, True]
