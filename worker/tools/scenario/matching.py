"""Whether a value is what a scenario expects, and if not, where it differs. Pure.

Objects match if every given member matches; `{"$absent": [...]}` inside names members that must be absent, and
`{"$exact": {...}}` forbids others. Lists have the same length; lists of cart items match in any order. Texts and
numbers match exactly, `true` is not a number and `1.0` is not `1`; `{"$regex": "..."}` searches a text.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

UNORDERED = frozenset({"items", "shipped", "unshipped"})
"""Members with lists of cart items."""

SHOWN_MAX = 160
"""Characters of a value that a difference shows."""

Differ = Callable[[Any, Any], list[str]]


def differences(expected: Any, actual: Any, path: str = "") -> list[str]:
    """Where `actual` differs from the expectation, one line each; empty if it matches."""
    if isinstance(expected, dict):
        if "$regex" in expected:
            return _regex_differences(expected["$regex"], actual, path)
        if isinstance(actual, dict):
            return _object_differences(expected, actual, path)
    elif isinstance(expected, list) and isinstance(actual, list):
        if _last(path) in UNORDERED:
            return unordered_differences(expected, actual, path, lambda e, a: differences(e, a, ""), name=_name)
        return _list_differences(expected, actual, path)
    elif type(expected) is type(actual) and expected == actual:
        return []
    return [_differs(path, show(expected), show(actual))]


def unordered_differences(
    expected: Sequence[Any],
    actual: Sequence[Any],
    path: str,
    differ: Differ,
    name: Callable[[int, Any], str] = lambda index, _: str(index),
) -> list[str]:
    """Where two lists differ whose order means nothing: each expected value has a partner of its own, or they differ.

    When there is no such assignment, what is left over is compared with what it resembles most.
    """
    known: dict[tuple[int, int], list[str]] = {}

    def compare(e: int, a: int) -> list[str]:
        if (e, a) not in known:
            known[e, a] = differ(expected[e], actual[a])
        return known[e, a]

    partner = _assign(len(expected), len(actual), lambda e, a: not compare(e, a))
    missing = [e for e in range(len(expected)) if e not in partner]
    surplus = sorted(set(range(len(actual))) - set(partner.values()))
    if len(expected) != len(actual):
        lines = [_differs(path, f"{len(expected)} values", str(len(actual)))]
        lines += [f"{path}: missing {show(expected[e])}" for e in missing]
        return lines + [f"{path}: not expected {show(actual[a])}" for a in surplus]
    lines = []
    for e in missing:
        nearest = min(surplus, key=lambda a: (len(compare(e, a)), a))
        surplus.remove(nearest)
        prefix = f"{path}[{name(e, expected[e])}]"
        lines += [_below(prefix, line) for line in compare(e, nearest)]
    return lines


def header_differences(expected: dict[str, Any], actual: dict[str, str], path: str) -> list[str]:
    """Like `differences` of objects, with case-insensitive names."""
    return differences(_lower_names(expected), {name.lower(): value for name, value in actual.items()}, path)


def pattern_problem(pattern: Any, path: str = "") -> str | None:
    """Why an expected value is invalid; `None`: it is valid."""
    if isinstance(pattern, list):
        return next(filter(None, (pattern_problem(each, f"{path}[{i}]") for i, each in enumerate(pattern))), None)
    if not isinstance(pattern, dict):
        return None
    for member, value in pattern.items():
        problem = _matcher_problem(member, value, pattern) if member.startswith("$") else None
        if problem:
            return f"{path or 'the value'}: {problem}"
    below = {member: value for member, value in pattern.items() if not member.startswith("$")}
    if "$exact" in pattern:
        below |= {member: value for member, value in pattern["$exact"].items() if member != "$absent"}
    return next(filter(None, (pattern_problem(v, f"{path}.{m}".lstrip(".")) for m, v in below.items())), None)


def show(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]} … ({len(text)} characters)"


# --- inside ---


def _object_differences(expected: dict[str, Any], actual: dict[str, Any], path: str) -> list[str]:
    members = {name: value for name, value in expected.items() if not name.startswith("$")}
    members.update(expected.get("$exact", {}))
    absent = set(members.pop("$absent", ())) | set(expected.get("$absent", ()))
    lines: list[str] = []
    for name, value in members.items():
        if name in actual:
            lines += differences(value, actual[name], f"{path}.{name}" if path else name)
        else:
            lines.append(_differs(f"{path}.{name}" if path else name, show(value), "nothing"))
    if "$exact" in expected:
        absent |= set(actual) - set(members)
    present = [name for name in actual if name in absent]
    return lines + [_differs(f"{path}.{name}" if path else name, "nothing", show(actual[name])) for name in present]


def _list_differences(expected: list[Any], actual: list[Any], path: str) -> list[str]:
    if len(expected) != len(actual):
        return [_differs(path, f"{len(expected)} values", f"{len(actual)}: {show(actual)}")]
    lines: list[str] = []
    for index, (each, value) in enumerate(zip(expected, actual, strict=True)):
        lines += differences(each, value, f"{path}[{index}]")
    return lines


def _regex_differences(pattern: str, actual: Any, path: str) -> list[str]:
    if isinstance(actual, str) and re.search(pattern, actual):
        return []
    return [_differs(path, f"a text with /{pattern}/", show(actual))]


def _assign(expected: int, actual: int, fits: Callable[[int, int], bool]) -> dict[int, int]:
    """The largest assignment of expected to actual indices that fit (augmenting paths, without recursion)."""
    partner: dict[int, int] = {}
    taken: dict[int, int] = {}
    for first in range(expected):
        came_from: dict[int, int] = {}
        queue = [first]
        free: int | None = None
        while queue and free is None:
            e = queue.pop(0)
            same_place = (e,) if e < actual else ()  # as a rule both are in the same order
            for a in (*same_place, *range(actual)):
                if a in came_from or not fits(e, a):
                    continue
                came_from[a] = e
                if a not in taken:
                    free = a
                    break
                queue.append(taken[a])
        while free is not None:
            e = came_from[free]
            taken[free], before = e, partner.get(e)
            partner[e], free = free, before
    return partner


def _matcher_problem(member: str, value: Any, pattern: dict[str, Any]) -> str | None:
    match member:
        case "$absent":
            fits = isinstance(value, list) and all(isinstance(name, str) for name in value)
            return None if fits else "$absent must be a list of names"
        case "$exact":
            fits = isinstance(value, dict) and not {"$exact", "$regex"} & value.keys()
            return None if fits else "$exact must be an object with plain members"
        case "$regex":
            if len(pattern) > 1:
                return "$regex must stand alone"
            try:
                re.compile(value)
            except (re.error, TypeError) as error:
                return f"$regex is no regular expression: {error}"
            return None
        case _:
            return f"there is no matcher {member}; there are $absent, $exact and $regex"


def _lower_names(pattern: dict[str, Any]) -> dict[str, Any]:
    lowered: dict[str, Any] = {}
    for name, value in pattern.items():
        match name:
            case "$absent":
                lowered[name] = [each.lower() for each in value]
            case "$exact":
                lowered[name] = _lower_names(value)
            case _:
                lowered[name.lower()] = value
    return lowered


def _name(index: int, item: Any) -> str:
    """The name of a cart item in a difference: its reference, or else its type, or else its index."""
    if isinstance(item, dict):
        for member in ("reference", "type"):
            if isinstance(item.get(member), str):
                return f"{member} {item[member]}"
    return str(index)


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _below(prefix: str, line: str) -> str:
    return f"{prefix}{line}" if line.startswith((":", "[")) else f"{prefix}.{line}"


def _differs(path: str, expected: str, actual: str) -> str:
    return f"{path}: expected {expected}, got {actual}"
