"""Structured logs: one line per thing that happened, as JSON for machines or as text for people.

    log = structlog.get_logger(__name__)
    log.info("order_settled", order=subject, revision=revision, partition=partition)

The event is a snake_case message, everything else a field. Bodies, credentials and what a provider says in an
error have no business here; as a second line of defence, fields whose names speak of such things are masked.

Loggers are cached at their first use and cost one comparison when their level is off. So what can change
while the process lives (where lines go, from which level on, how they look) is not in the logger but in one
`_Output`, which `configure` and `capture` replace.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

__all__ = ["Log", "LogFormat", "capture", "configure"]

LogFormat = Literal["json", "console", "auto"]
"""`auto`: text on a terminal, JSON otherwise."""

MASK = "***"
_PRIVATE_NAMES = (
    *("password", "passwd", "secret", "authorization", "credential", "apikey", "cookie"),
    *("deliveryaddress", "invoiceaddress", "emailaddress"),
)
"""Anywhere in the name of a field, underscores left out."""
_PRIVATE_WORDS = frozenset(
    {"pwd", "token", "body", "payload", "header", "headers", "facts", "data", "value"}
    | {"customer", "email", "phone", "nin", "surnames", "birth"}
)
"""Words of which the name of a field consists: bodies and personal data."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_CREDENTIALS = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{6,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""In free text: what follows the scheme of an Authorization header, and user:password of a URL."""
_DEPTH_MAX = 4

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LIBRARIES = ("aiokafka", "aiohttp", "asyncio")
"""Theirs are shown from `warning` on, unless ours are shown from `debug` on."""


class _Output(NamedTuple):
    """Where lines go, from which level on, and how they look."""

    threshold: int
    write: Callable[[str], None]
    """Takes one line, without its end."""
    render: Callable[[EventDict], str]
    wall_ms: Callable[[], int] | None
    """UTC milliseconds; `None`: the machine's own clock."""


class Log(structlog.BoundLoggerBase):
    """A logger. Levels that are off cost one comparison; no method ever raises because of what is logged."""

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever looks into a defect."""
        if _output.threshold <= 10:
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """What happened."""
        if _output.threshold <= 20:
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What may need somebody."""
        if _output.threshold <= 30:
            self._proxy_to_logger("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """What needs somebody."""
        if _output.threshold <= 40:
            self._proxy_to_logger("error", event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """As `error`, with the exception that is being handled."""
        if _output.threshold <= 40:
            self._proxy_to_logger("error", event, **({"exc_info": True} | fields))

    def critical(self, event: str, **fields: Any) -> None:
        """What stops us."""
        self._proxy_to_logger("critical", event, **fields)


class _Sink:
    """What structlog calls a logger: the end of the chain. Writes to the output of the moment."""

    def msg(self, line: str) -> None:
        _output.write(line)

    debug = info = warning = error = critical = msg


class _Stdlib(logging.Handler):
    """Takes what libraries log through `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: EventDict = {"event": _scrub(record.getMessage()), "logger": record.name}
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            level = record.levelname.lower()
            for process in _PROCESSORS:
                fields = process(None, level, fields)
            _output.write(str(fields))
        except Exception:  # noqa: BLE001 - a log line that cannot be made must not stop who wrote it
            self.handleError(record)


# --- the chain ---


_PLAIN = frozenset({str, int, float, bool, type(None)})


@lru_cache(maxsize=1024)
def _is_sensitive(name: str) -> bool:
    flat = name.lower().replace("_", "").replace("-", "")
    if any(word in flat for word in _PRIVATE_NAMES):
        return True
    return any(word.lower() in _PRIVATE_WORDS for word in _WORD.findall(name))


def _masked(value: Any, depth: int = 0) -> Any:
    """The value without what must not be shown. Objects become texts: encoded whole, they would show all."""
    if type(value) in _PLAIN:
        return value
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


def mask(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Masks fields whose name speaks of credentials, bodies or personal data, also inside of others."""
    return {name: MASK if _is_sensitive(name) else _masked(value) for name, value in fields.items()}


def _stamp(_logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    wall_ms = _output.wall_ms
    now = datetime.now(UTC) if wall_ms is None else datetime.fromtimestamp(wall_ms() / 1000, UTC)
    time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "level": method, "event": fields.pop("event", ""), **fields}


def _trace_back(logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    """The traceback as text: without the values of variables, which may be anything."""
    if "exc_info" not in fields:
        return fields
    fields = structlog.processors.format_exc_info(logger, method, fields)
    if "exception" in fields:
        fields["exception"] = _scrub(fields["exception"])
    return fields


def _render(_logger: WrappedLogger, _method: str, fields: EventDict) -> str:
    return _output.render(fields)


_PROCESSORS: tuple[Callable[[WrappedLogger, str, EventDict], Any], ...] = (
    structlog.contextvars.merge_contextvars,
    _trace_back,
    mask,
    _stamp,
    _render,
)

_encoder = msgspec.json.Encoder(enc_hook=repr)


def _as_json(fields: EventDict) -> str:
    try:
        return _encoder.encode(fields).decode()
    except Exception:  # noqa: BLE001 - a lone surrogate, a key that is no text: a line must come out all the same
        return _encoder.encode({str(name): ascii(value) for name, value in fields.items()}).decode()


def _as_text(colors: bool) -> Callable[[EventDict], str]:
    # Values are quoted by repr, so no text from outside can begin a line of its own.
    renderer = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time", sort_keys=False)

    def render(fields: EventDict) -> str:
        return renderer(None, "", {**fields, "event": repr(fields["event"])[1:-1]})

    return render


# --- setting it up ---


def configure(
    format: LogFormat = "auto",  # noqa: A002 - the name that it has in the configuration
    level: str = "info",
    *,
    stream: TextIO | None = None,
    wall_ms: Callable[[], int] | None = None,
) -> None:
    """Sends all that is logged in this process, by structlog or `logging`, to a stream (default: stdout).

    `level`: debug, info, warning, error or critical. `wall_ms` gives the times of the lines, UTC milliseconds
    (default: the machine's clock). May be called again. Raises `KeyError` for an unknown level.
    """
    stream = stream or sys.stdout
    terminal = stream.isatty()
    is_text = format == "console" or (format == "auto" and terminal)

    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    _use(_Output(_LEVELS[level], write, _as_text(terminal) if is_text else _as_json, wall_ms))


@contextmanager
def capture(lines: list[str], level: str = "debug", wall_ms: Callable[[], int] | None = None) -> Iterator[None]:
    """Collects every line, as JSON, instead of writing it, until the end of the `with` block."""
    before, handlers, root_level = _output, logging.root.handlers[:], logging.root.level
    _use(_Output(_LEVELS[level], lines.append, _as_json, wall_ms))
    try:
        yield
    finally:
        _use(before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(root_level)


def _use(output: _Output) -> None:
    global _output  # noqa: PLW0603 - logs are one per process, as stdout is
    _output = output
    structlog.configure(
        processors=list(_PROCESSORS),
        wrapper_class=Log,
        logger_factory=lambda *_names: _Sink(),
        cache_logger_on_first_use=True,
    )
    logging.root.handlers[:] = [_Stdlib()]
    logging.root.setLevel(output.threshold)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(
            logging.NOTSET if output.threshold <= logging.DEBUG else max(logging.WARNING, output.threshold)
        )


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


_output = _Output(_LEVELS["info"], _to_stderr, _as_json, None)
