"""Structured logs: one line per event, as JSON for machines or as text for people.

    log = structlog.get_logger(__name__)
    log.info("order_settled", order=subject, revision=revision, partition=partition)

The event is a snake_case name, everything else a field. Bodies, credentials and the text of a provider's error must
not be logged; as a second line of defense, fields whose names suggest such content are masked.

Logging never blocks: a line goes into a bounded queue, and a thread writes it. If the disk is full or the reader of a
pipe hangs, lines are dropped and counted, and the next line that can be written reports the count
(`log_lines_dropped`). Floods are sampled: the first lines of a kind within an interval are written, then one line with
the count of the rest (`log_lines_sampled`). All lines of libraries are sampled, and ours that pass `sampled_by`.

Loggers are cached at their first use and cost one comparison when their level is off. So everything that can change
while the process runs (stream, level, format) is not in the logger but in one `_Output`, which `configure` and
`capture` replace.
"""

import atexit
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple, TextIO

import msgspec
import structlog
from structlog.typing import EventDict

__all__ = ["Log", "LogFormat", "capture", "configure", "dropped", "flush"]

LogFormat = Literal["json", "console", "auto"]
"""`auto`: text on a terminal, JSON otherwise."""

MASK = "***"
_PRIVATE_NAMES = (
    *("password", "passwd", "secret", "authorization", "credential", "apikey", "cookie"),
    *("deliveryaddress", "invoiceaddress", "emailaddress"),
)
"""Substrings of a field's name, ignoring underscores."""
_PRIVATE_WORDS = frozenset(
    {"pwd", "token", "body", "payload", "header", "headers", "facts", "data", "value"}
    | {"customer", "email", "phone", "nin", "surnames", "birth"}
)
"""Whole words of a field's name: bodies and personal data."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NUMBERS = re.compile(r"\d+")
_CREDENTIALS = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{6,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""In free text: the credentials of an Authorization header, and user:password in a URL."""
_DEPTH_MAX = 4
_TEXT_MAX = 1_024
"""Maximum length of a field, in characters."""
_TRACE_MAX = 16_384
_LINE_MAX = 65_536

QUEUE_MAX = 10_000
"""Maximum lines in the queue; further lines are dropped."""
_GATHER_S = 0.02
"""How long the thread collects lines that come in quick succession: one write for many of them, and few switches
between the threads.
"""
FLUSH_S = 1.0
"""How long the process waits at exit for lines to be written."""
SAMPLE_FIRST = 20
"""How many lines of a kind are written within an interval."""
SAMPLE_INTERVAL_S = 60.0
_KINDS_MAX = 1_000

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LIBRARIES = ("aiokafka", "aiohttp", "asyncio")
"""Their lines are shown from `warning` up, unless our level is `debug`."""
_UNTRUSTED = ("aiohttp.server",)
"""Their messages quote requests, tokens in the URL included: only the type of the error is shown."""


class _Output(NamedTuple):
    """Where lines go, at which level, and in which format."""

    threshold: int
    write: Callable[[str], None]
    """Writes one line, passed without its newline."""
    render: Callable[[EventDict], str]
    wall_ms: Callable[[], int] | None
    """UTC milliseconds; `None`: the system clock."""
    sampler: "_Sampler"
    hash_orders: bool = False
    writer: "_Writer | None" = None


class _Kind:
    """The count of one kind of line within an interval."""

    __slots__ = ("began", "count", "fields")

    def __init__(self, began: float, fields: EventDict) -> None:
        self.began = began
        self.count = 0
        self.fields = fields


class _Sampler:
    """Admits the first lines of a kind within an interval, and counts the rest."""

    def __init__(self, wall_ms: Callable[[], int] | None) -> None:
        self._wall_ms = wall_ms
        self._kinds: dict[object, _Kind] = {}
        self._lock = threading.RLock()  # reentrant: a garbage collection may log while we hold it

    def _now(self) -> float:
        return time.monotonic() if self._wall_ms is None else self._wall_ms() / 1000

    def admits(self, key: object, **fields: str) -> bool:
        """Whether to write a line of this kind. `fields`: logged along with the count of the rest."""
        with self._lock:
            now = self._now()
            kind = self._kinds.get(key)
            ended = kind is not None and now - kind.began >= SAMPLE_INTERVAL_S
            if ended or (kind is None and len(self._kinds) >= _KINDS_MAX):
                self._report(now, key if ended else None)
                kind = None
            if kind is None:
                kind = self._kinds[key] = _Kind(now, fields)
            kind.count += 1
            admitted = kind.count <= SAMPLE_FIRST
        if kind.count == SAMPLE_FIRST + 1 and _output.writer is not None:
            _output.writer.wake()  # so that the count is reported on time even if no other line follows
        return admitted

    def report(self, *, everything: bool = False) -> bool:
        """Writes the counts of expired intervals, or of all; true: some are still running."""
        with self._lock:
            now = self._now()
            for key in [k for k, kind in self._kinds.items() if everything or now - kind.began >= SAMPLE_INTERVAL_S]:
                self._report(now, key)
            return any(kind.count > SAMPLE_FIRST for kind in self._kinds.values())

    def _report(self, now: float, key: object | None) -> None:
        """Removes one kind, or all, and writes how many of its lines were left out."""
        kinds = [self._kinds.pop(key)] if key is not None else list(self._kinds.values())
        if key is None:
            self._kinds.clear()
        for kind in kinds:
            if kind.count > SAMPLE_FIRST:
                left_out = {"left_out": kind.count - SAMPLE_FIRST, "seconds": round(now - kind.began)}
                _output.write(_line("warning", "log_lines_sampled", {**kind.fields, **left_out}))


class _Writer:
    """A thread that writes lines to a stream: callers never block, and never see a failure."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._file: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._file = None
        # `SimpleQueue.put` is reentrant: a garbage collection may log while this thread is inside it.
        self._queue: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        self._refused = 0
        self._failed = 0
        self._reported = 0
        self._is_cut = False
        """Whether the last write stopped within a line."""
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._refused + self._failed

    def write(self, line: str) -> None:
        """Queues one line, passed without its newline."""
        if self._queue.qsize() < QUEUE_MAX:
            self._queue.put(line)
        else:
            self._refused += 1

    def wake(self) -> None:
        """Has the thread check for counts that are due."""
        self._queue.put(None)

    def flush(self, within_s: float) -> bool:
        """Waits until all queued lines are written or dropped; false: not in time."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(within_s)

    def end(self, within_s: float) -> None:
        """Writes the remaining lines and ends the thread; if it hangs, abandons it."""
        self._ended = True
        self.wake()
        self._thread.join(within_s)

    def _run(self) -> None:
        pause_s: float | None = None
        wrote_at = 0.0
        while not (self._ended and self._queue.empty()):
            with suppress(Empty):
                first = self._queue.get(timeout=pause_s)
                is_busy = time.monotonic() - wrote_at < _GATHER_S
                if is_busy and not (self._ended or isinstance(first, threading.Event)):
                    time.sleep(_GATHER_S)
                self._take(first)
                wrote_at = time.monotonic()
            pause_s = SAMPLE_INTERVAL_S / 10 if _output.writer is self and _output.sampler.report() else None

    def _take(self, first: str | threading.Event | None) -> None:
        """Writes the lines queued so far; lines that arrive meanwhile are written next time."""
        taken = [first, *(self._queue.get_nowait() for _ in range(self._queue.qsize()))]
        lines = [each for each in taken if isinstance(each, str)]
        if lines:
            self._put(lines)
        for each in taken:
            if isinstance(each, threading.Event):
                each.set()

    def _put(self, lines: list[str]) -> None:
        missing = self.dropped - self._reported
        report = [_line("warning", "log_lines_dropped", {"count": missing})] if missing else []
        try:
            text = "\n".join([*report, *lines, ""])
            if self._file is None:
                self._stream.write(text)
                self._stream.flush()
            else:
                self._put_bytes(self._file, text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
            self._reported += missing
        except Exception:  # noqa: BLE001 - a full disk, a reader that has gone, a closed stream: treated alike
            self._failed += len(lines)

    def _put_bytes(self, file: int, content: bytes) -> None:
        if self._is_cut:
            content = b"\n" + content
        while content:
            try:
                count = os.write(file, content)
            except BlockingIOError:  # a process that shares the file has made it non-blocking
                select.select([], [file], [])
                continue
            self._is_cut = content[count - 1 : count] != b"\n"
            content = content[count:]


class Log(structlog.BoundLoggerBase):
    """A logger. Levels that are off cost one comparison; no method ever raises or blocks.

    Pass `sampled_by` if lines may flood: lines with the same event and the same `sampled_by` are sampled together.
    """

    def debug(self, event: str, **fields: Any) -> None:
        """For debugging."""
        if _output.threshold <= 10:
            self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Normal events."""
        if _output.threshold <= 20:
            self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """May need attention."""
        if _output.threshold <= 30:
            self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Needs attention."""
        if _output.threshold <= 40:
            self._write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """As `error`, with the exception that is being handled."""
        if _output.threshold <= 40:
            self._write("error", event, {"exc_info": True} | fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Stops the process."""
        self._write("critical", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        try:
            if "sampled_by" in fields and (kind := fields.pop("sampled_by")) is not None:
                shown = {"of": event, "sampled_by": str(kind)[:_TEXT_MAX]}
                if not _output.sampler.admits((event, kind), **shown):
                    return
            if self._context:
                fields = {**self._context, **fields}
            _output.write(_line(level, event, fields))
        except Exception:  # noqa: BLE001 - a log line that cannot be rendered must not stop its caller
            with suppress(Exception):
                _output.write(_line("error", "log_line_failed", {"of": event}))


class _Stdlib(logging.Handler):
    """Receives what libraries log through `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Numbers are ignored: some libraries put an address or an offset into the message instead of its arguments.
            key = record.name, record.levelno, _NUMBERS.sub("#", str(record.msg)[:_TEXT_MAX])
            of = _scrub(str(record.msg)[:_TEXT_MAX])
            if not _output.sampler.admits(key, of=of, logger=record.name):
                return
            error = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
            if record.name in _UNTRUSTED:
                event, fields = of, {"logger": record.name, "error": getattr(error, "__name__", None)}
            else:
                event, fields = _scrub(record.getMessage()), {"logger": record.name}
                if record.exc_info:
                    fields["exc_info"] = record.exc_info
            _output.write(_line(record.levelname.lower(), event, fields))
        except Exception:  # noqa: BLE001 - a log line that cannot be rendered must not stop its caller
            _output.write(_line("error", "log_line_failed", {"logger": record.name}))


# --- a line ---
#
# One function instead of structlog's chain of processors, which took 4 µs of the 9 of a line: there is a line for each
# update (`make bench ARGS="--only log-file"`).


_NUMBERS_AND_NONE = frozenset({int, float, bool, type(None)})


@lru_cache(maxsize=1024)
def _is_sensitive(name: str) -> bool:
    flat = name.lower().replace("_", "").replace("-", "")
    if any(word in flat for word in _PRIVATE_NAMES):
        return True
    return any(word.lower() in _PRIVATE_WORDS for word in _WORD.findall(name))


def _masked(value: Any, depth: int = 0) -> Any:
    """The value with sensitive parts masked. Objects become strings: encoded whole, they would expose everything."""
    if type(value) in _NUMBERS_AND_NONE:
        return value
    if type(value) is str:
        return value if len(value) <= _TEXT_MAX else f"{value[:_TEXT_MAX]}… ({len(value)} characters)"
    if depth == _DEPTH_MAX:
        return MASK
    match value:
        case Enum():
            return value.value
        case dict():
            pairs = ((str(name), inner) for name, inner in value.items())
            return {name: MASK if _is_sensitive(name) else _masked(inner, depth + 1) for name, inner in pairs}
        case list() | tuple() | set() | frozenset():
            return [_masked(inner, depth + 1) for inner in value]
        case bytes() | bytearray() | memoryview():
            return MASK
        case msgspec.Struct():
            return type(value).__name__
        case _:
            return _scrub(repr(value))


def _scrub(text: str) -> str:
    return _CREDENTIALS.sub(MASK, text)


def _hashed(subject: str) -> str:
    account, slash, reference = subject.partition("/")
    return account + slash + sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@lru_cache(maxsize=4)
def _time_text(wall_ms: int) -> str:
    """Most lines come in quick succession, and have their moment in common."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace_back(fields: EventDict) -> EventDict:
    """The traceback as text, without local variables: they may contain anything."""
    fields = structlog.processors.format_exc_info(None, "", dict(fields))
    if "exception" in fields:
        fields["exception"] = _scrub(fields["exception"])[-_TRACE_MAX:]
    return fields


_more: Callable[[], Mapping[str, str]] | None = None


def add_to_lines(fields: Callable[[], Mapping[str, str]]) -> None:
    """Has every line carry these, too, as they are when it is written: of the span that is under way."""
    global _more  # noqa: PLW0603 - of the process, like the output
    _more = fields


def _line(level: str, event: str, fields: EventDict) -> str:
    """Renders a line: its time, what spans add to it, and its fields. Those whose names suggest credentials, bodies or
    personal data are masked, nested ones too.
    """
    if "exc_info" in fields:
        fields = _trace_back(fields)
    if _more is not None:
        fields = {
            **fields,
            **{name: value for name, value in _more().items() if name not in fields and name != "event"},
        }
    output = _output
    wall_ms = time.time_ns() // 1_000_000 if output.wall_ms is None else output.wall_ms()
    shown: EventDict = {"time": _time_text(wall_ms), "level": level, "event": _masked(event)}
    for name, value in fields.items():
        kind = type(value)
        if _is_sensitive(name):
            shown[name] = MASK
        elif kind in _NUMBERS_AND_NONE or (kind is str and len(value) <= _TEXT_MAX):  # no call for each
            shown[name] = value
        else:
            shown[name] = _masked(value)
    if output.hash_orders and "order" in fields:
        shown["order"] = _hashed(str(fields["order"]))
    if "exception" in fields:
        shown["exception"] = fields["exception"]  # has its own length limit
    line = output.render(shown)
    if len(line) <= _LINE_MAX:
        return line
    return output.render({name: shown[name] for name in ("time", "level", "event")} | {"characters": len(line)})


_encoder = msgspec.json.Encoder(enc_hook=repr)


def _as_json(fields: EventDict) -> str:
    try:
        return _encoder.encode(fields).decode()
    except Exception:  # noqa: BLE001 - a lone surrogate, a key that is not a string: the line must be written anyway
        return _encoder.encode({str(name): ascii(value) for name, value in fields.items()}).decode()


def _as_text(colors: bool) -> Callable[[EventDict], str]:
    # Values are quoted by repr, so text from outside cannot start a new line.
    renderer = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time", sort_keys=False)

    def render(fields: EventDict) -> str:
        return renderer(None, "", {**fields, "event": repr(fields["event"])[1:-1]})

    return render


# --- setting it up ---


def configure(
    format: LogFormat = "auto",  # noqa: A002 - its name in the configuration
    level: str = "info",
    *,
    stream: TextIO | None = None,
    wall_ms: Callable[[], int] | None = None,
    hash_orders: bool = False,
) -> None:
    """Sends everything that this process logs, through structlog or `logging`, to a stream (default: stdout).

    `level`: debug, info, warning, error or critical. `wall_ms`: the clock for the lines' times, in UTC milliseconds
    (default: the system clock). `hash_orders`: show an order's account in clear, and its reference hashed. May be
    called again. Raises `KeyError` for an unknown level.
    """
    stream = stream or sys.stdout
    terminal = stream.isatty()
    is_text = format == "console" or (format == "auto" and terminal)

    threshold, before, writer = _LEVELS[level], _output.writer, _Writer(stream)
    render = _as_text(terminal) if is_text else _as_json
    _use(_Output(threshold, writer.write, render, wall_ms, _Sampler(wall_ms), hash_orders, writer))
    if before is None:
        atexit.register(flush)
    else:
        before.end(FLUSH_S)


def flush(within_s: float = FLUSH_S) -> bool:
    """Waits until all lines logged so far are written, counts of sampled lines included; false: not in time.

    Called automatically when the process exits.
    """
    _output.sampler.report(everything=True)
    return _output.writer is None or _output.writer.flush(within_s)


def dropped() -> int:
    """The number of lines that could not be written since `configure`."""
    return 0 if _output.writer is None else _output.writer.dropped


@contextmanager
def capture(lines: list[str], level: str = "debug", wall_ms: Callable[[], int] | None = None) -> Iterator[None]:
    """Collects every line as JSON instead of writing it, until the end of the `with` block."""
    before, handlers, root_level = _output, logging.root.handlers[:], logging.root.level
    _use(_Output(_LEVELS[level], lines.append, _as_json, wall_ms, _Sampler(wall_ms)))
    try:
        yield
    finally:
        if _output.writer is not None and _output.writer is not before.writer:
            _output.writer.end(FLUSH_S)
        _use(before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(root_level)


def _use(output: _Output) -> None:
    global _output  # noqa: PLW0603 - one log per process, like stdout
    _output = output
    structlog.configure(
        processors=[],  # `_line` is all of them
        wrapper_class=Log,
        logger_factory=lambda *_names: None,
        cache_logger_on_first_use=True,
    )
    logging.root.handlers[:] = [_Stdlib()]
    logging.root.setLevel(output.threshold)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(
            logging.NOTSET if output.threshold <= logging.DEBUG else max(logging.WARNING, output.threshold)
        )


def _to_stderr(line: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")


_output = _Output(_LEVELS["info"], _to_stderr, _as_json, None, _Sampler(None))
