"""One function per expectation: each returns the differences, as lines of text. Pure."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, structs, to_builtins

from schemas.views import ItemView, OrderView
from worker.config import parse_duration
from worker.errors import UsageError
from worker.ports import DeadLetter, Result
from worker.sim.scripted import Exchange, ScriptedProvider
from worker.tools.scenario.calls import Answered
from worker.tools.scenario.matching import differences, header_differences, show, unordered_differences
from worker.tools.scenario.steps import (
    AnswerPattern,
    DeadLetterPattern,
    HeldPattern,
    OrderPattern,
    ProviderPattern,
    RequestCount,
    RequestPattern,
)

_CLOCK_ERROR_S = 1e-6
"""Tolerance: virtual time is a sum of floats."""


def requests(
    expected: Sequence[RequestPattern], exchanges: Sequence[Exchange], since: float, *, any_order: bool
) -> list[str]:
    """Expects exactly these requests; times count from `since`."""

    def differ(pattern: RequestPattern, exchange: Exchange) -> list[str]:
        return _request_differences(pattern, exchange, exchange.at - since)

    if len(expected) != len(exchanges):
        return [f"expected {len(expected)} requests, got {len(exchanges)}", *_told(exchanges, since)]
    if any_order:
        lines = unordered_differences(expected, exchanges, "requests", differ)
    else:
        pairs = enumerate(zip(expected, exchanges, strict=True))
        lines = [f"requests[{index}].{line}" for index, (e, exchange) in pairs for line in differ(e, exchange)]
    return lines + _told(exchanges, since) if lines else []


def request_count(expected: RequestCount, exchanges: Sequence[Exchange], since: float) -> list[str]:
    """Expects a number of requests."""
    count, most = len(exchanges), expected.at_most
    if expected.at_least <= count and (most is None or count <= most):
        return []
    bounds = f"at least {expected.at_least}" + ("" if most is None else f" and at most {most}")
    return [f"expected {bounds} requests, got {count}", *_told(exchanges, since)]


def order(expected: OrderPattern, actual: OrderView | None) -> list[str]:
    """Expects the state of an order; an order without accepted events is unconfirmed."""
    actual = actual or OrderView(expected.subject, "unconfirmed", "no event of it was accepted")
    seen = {
        "status": actual.status,
        "shipped_minor": actual.shipped_minor,
        "unshipped_minor": actual.unshipped_minor,
        "shipped": _items(actual.shipped),
        "unshipped": _items(actual.unshipped),
        "provider": None if actual.provider is None else to_builtins(actual.provider),
    }
    pattern = {name: value for name, value in structs.asdict(expected).items() if name in seen and value is not UNSET}
    lines = differences(pattern, seen)
    lines += _lacking("reason", expected.reason_contains, actual.reason)
    if lines and actual.reason:
        lines.append(f"its reason: {actual.reason}")
    return [f"{expected.subject}: {line}" for line in lines]


def dead_letters(expected: Sequence[DeadLetterPattern], letters: Sequence[DeadLetter]) -> list[str]:
    """Expects exactly these dead letters."""
    said = [_said(letter) for letter in letters]
    lines: list[str] = []
    if len(expected) != len(said):
        lines.append(f"expected {len(expected)} dead letters, got {len(said)}")
    else:
        for index, (pattern, (reason, detail)) in enumerate(zip(expected, said, strict=True)):
            if pattern.reason is not UNSET:
                lines += differences(pattern.reason, reason, f"dead_letters[{index}].reason")
            lines += _lacking(f"dead_letters[{index}].detail", pattern.detail_contains, detail)
    return lines + [f"  {index}: {reason}: {detail}" for index, (reason, detail) in enumerate(said)] if lines else []


def held(expected: Mapping[str, HeldPattern | None], provider: ScriptedProvider) -> list[str]:
    """Expects the carts that the provider has."""
    lines: list[str] = []
    for name, pattern in expected.items():
        try:
            carts = provider.held(name)
        except ValueError as error:
            lines.append(str(error))
            continue
        seen = None if carts is None else structs.asdict(carts)
        wanted = None if pattern is None else _given(pattern)
        lines += differences(wanted, seen, name)
    return lines


def at_provider(expected: Mapping[str, ProviderPattern], shown: Callable[[str], dict[str, Any]]) -> list[str]:
    """Expects the state of orders in a model."""
    lines: list[str] = []
    for name, pattern in expected.items():
        try:
            lines += differences(_given(pattern), shown(name), name)
        except UsageError as error:
            lines.append(str(error))
    return lines


def answer(expected: AnswerPattern, answered: Answered, took_s: float) -> list[str]:
    """Expects the response to a call, and its time."""
    lines: list[str] = []
    if expected.status is not UNSET:
        lines += differences(expected.status, answered.status, "status")
    if expected.json is not UNSET:
        lines += differences(expected.json, _decoded(answered.body), "json")
    if expected.within is not None and took_s > parse_duration(expected.within) + _CLOCK_ERROR_S:
        lines.append(f"within: expected {expected.within} or sooner, got {took_s:.3f} s")
    return lines


def results(expected: Sequence[dict[str, Any]], found: Sequence[Result], *, any_order: bool) -> list[str]:
    """Expects exactly these results."""
    events = [_decoded(each.value) for each in found]
    if any_order or len(expected) != len(events):
        lines = unordered_differences(expected, events, "results", differences)
    else:
        lines = differences(list(expected), events, "results")
    told = [f"  {index}: {each['type']} {each['subject']} {show(each['data'])}" for index, each in enumerate(events)]
    return lines + told if lines else []


def lacks(
    texts: Iterable[str], log_lines: Iterable[str], labels: Iterable[str], letters: Iterable[DeadLetter]
) -> list[str]:
    """Expects these texts to be absent."""
    places = [("a log line", each) for line in log_lines for each in (line, *_texts(json.loads(line)))]
    places += [("a metric label", label) for label in labels]
    headers = [header for letter in letters for header in letter.headers]
    places += [("a dead-letter header", f"{name}: {value.decode('utf-8', 'replace')}") for name, value in headers]
    lines: list[str] = []
    for text in texts:
        found = next(((what, each) for what, each in places if text in each), None)
        if found is not None:
            lines.append(f"{show(text)} is in {found[0]}: {show(found[1])}")
    return lines


def not_idle(within: str, orders: Iterable[OrderView]) -> list[str]:
    """Why the worker did not become idle."""
    owed = [f"{each.subject} is owed: {each.reason}" for each in orders if each.status == "owed" or each.in_flight]
    return [f"not idle within {within}", *(owed or ["no order is owed, but the worker is not idle"])]


# --- inside ---


def _request_differences(pattern: RequestPattern, exchange: Exchange, at_s: float) -> list[str]:
    lines: list[str] = []
    for member in ("method", "url", "body"):
        expected = getattr(pattern, member)
        if expected is not UNSET:
            lines += differences(expected, getattr(exchange, member), member)
    if pattern.form is not UNSET:
        text = exchange.body if isinstance(exchange.body, str) else ""
        lines += differences(pattern.form, dict(parse_qsl(text, keep_blank_values=True)), "form")
    if pattern.headers is not UNSET:
        lines += header_differences(pattern.headers, exchange.headers, "headers")
    if pattern.after is not None and at_s < parse_duration(pattern.after) - _CLOCK_ERROR_S:
        lines.append(f"after: expected {pattern.after} or later, got {at_s:.3f} s")
    if pattern.before is not None and at_s > parse_duration(pattern.before) + _CLOCK_ERROR_S:
        lines.append(f"before: expected {pattern.before} or sooner, got {at_s:.3f} s")
    return lines


def _told(exchanges: Sequence[Exchange], since: float) -> list[str]:
    """The actual requests, one line each."""
    return [
        f"  {index}: after {each.at - since:.3f} s {each.method} {each.url} {_content(each)}"
        for index, each in enumerate(exchanges)
    ]


def _content(exchange: Exchange) -> str:
    carts = exchange.carts
    return show(exchange.body) if carts is None else f"{carts.shipped_minor} | {carts.unshipped_minor}"


def _items(items: Sequence[ItemView] | None) -> list[dict[str, Any]] | None:
    return None if items is None else [_item(item) for item in items]


def _item(item: ItemView) -> dict[str, Any]:
    """An item as in scenario files: without members that its type does not have."""
    seen: dict[str, Any] = {"type": item.type, "total_minor": item.total_minor}
    if item.reference is not None:
        seen["reference"] = item.reference
    if item.quantity:
        seen["quantity"] = item.quantity
    return seen


def _lacking(path: str, expected: str | list[str], actual: str) -> list[str]:
    texts = [expected] if isinstance(expected, str) else expected
    return [f"{path}: expected a text with {show(text)}, got {show(actual)}" for text in texts if text not in actual]


def _said(letter: DeadLetter) -> tuple[str, str]:
    """Reason and detail. Our headers follow the record's own, which may have the same names."""
    headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers}
    return headers.get("x-dlq-reason", ""), headers.get("x-dlq-detail", "")


def _decoded(body: bytes) -> Any:
    """The JSON value, or the text if it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace")


def _given(pattern: HeldPattern | ProviderPattern) -> dict[str, Any]:
    return {name: value for name, value in structs.asdict(pattern).items() if value is not UNSET}


def _texts(value: Any) -> Iterable[str]:
    """All texts inside a JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from _texts(each)
        case list():
            for each in value:
                yield from _texts(each)
