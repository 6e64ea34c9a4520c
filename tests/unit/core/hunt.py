"""`python -m tests.unit.core.hunt [COUNT]`: many random histories, and for a failure the smallest that still fails.

Each seed is a history (`histories.story`), each truth of `truths` is asked about it. A failure prints its seed, and
leaves the smallest history as a scenario file whose expectations are those of the naive model: `cartsync scenario`
runs it.
"""

import argparse
import copy
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.shops.histories import Json, events_of, story
from tests.unit.core.naive_carts import NaiveItem, naive_order
from tests.unit.core.truths import TRUTHS, Truth
from worker.errors import MalformedEventError

CHUNK = 200
"""Seeds that a process takes at a time."""
TRIES_MAX = 5_000
"""Smaller histories that are tried for one failure."""
TELL_EVERY_S = 5.0


def failure_of(truth: Truth, log: list[Json], seed: int) -> str | None:
    """What the truth found, if it does not hold. A crash is a failure like any other."""
    try:
        truth(log, Random(seed))
    except AssertionError as error:
        return f"{error}".partition("\n")[0]
    except Exception as error:  # noqa: BLE001 - whatever it is, a crash is a finding
        return f"{type(error).__name__}: {error}"
    return None


def check(seed: int) -> list[tuple[str, str]]:
    """The truths that do not hold of the history with this seed, and what they found."""
    log = story(Random(seed), ties=seed % 8 == 7)
    asked = ["model_agrees", "nothing_is_lost"] if seed % 8 == 7 else list(TRUTHS)
    found = [(name, failure_of(TRUTHS[name], log, seed)) for name in asked]
    return [(name, said) for name, said in found if said is not None]


def _check_chunk(seeds: range) -> list[tuple[int, str, str]]:
    return [(seed, name, said) for seed in seeds for name, said in check(seed)]


# --- the smallest history that still fails --------------------------------------------------------------------------


def shrink(truth: Truth, log: list[Json], seed: int) -> list[Json]:
    """A history from which nothing can be left out without losing the failure."""
    tries, smaller = 0, True
    while smaller:
        smaller = False
        for candidate in _smaller(log):
            tries += 1
            if tries > TRIES_MAX:
                return log
            if _is_valid(candidate) and failure_of(truth, candidate, seed) is not None:
                log, smaller = candidate, True
                break
    return log


def _smaller(log: list[Json]) -> Iterator[list[Json]]:
    """Every history with one thing less: an event, an optional member, a line, a unit, some of an amount."""
    for index in range(len(log)):
        yield log[:index] + log[index + 1 :]
    for index, event in enumerate(log):
        for data in _smaller_data(event["data"]):
            yield [*log[:index], event | {"data": data}, *log[index + 1 :]]


def _smaller_data(data: Json) -> Iterator[Json]:
    for member, value in data.items():
        if member not in ("currency", "lines", "shipped", "unshipped"):
            yield {name: each for name, each in data.items() if name != member}
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield data | {member: value[:index] + value[index + 1 :]}
                if isinstance(each, dict):
                    for fewer in _smaller_data(each):
                        yield data | {member: [*value[:index], fewer, *value[index + 1 :]]}
        elif isinstance(value, int) and not isinstance(value, bool):
            for less in (0, value // 10 * 10, value // 2, value - (value > 0)):
                if abs(less) < abs(value):
                    yield data | {member: less}


def _is_valid(log: list[Json]) -> bool:
    """Whether the door takes all of it."""
    try:
        events_of(log)
    except MalformedEventError:
        return False
    return bool(log)


def scenario_of(log: list[Json], title: str) -> Json:
    """A scenario file with what the naive model says of the end."""
    subject = log[0]["subject"]
    order = naive_order(log)
    expected: Json = {"subject": subject}
    if order.state != "ready":
        expected["status"] = order.state
    for cart, items in (("shipped", order.shipped), ("unshipped", order.unshipped)):
        if items is not None:
            expected[cart] = [_view(item) for item in items]
            expected[f"{cart}_minor"] = sum(item[4] for item in items)
    steps: list[Json] = [{"event": event} for event in copy.deepcopy(log)]
    return {"name": title, "steps": [*steps, {"run": "10s"}, {"expect_order": expected}]}


def _view(item: NaiveItem) -> Json:
    kind, reference, _, quantity, total = item
    seen: Json = {"type": kind, "total_minor": total}
    return seen | ({} if reference is None else {"reference": reference}) | ({"quantity": quantity} if quantity else {})


# --- the run ----------------------------------------------------------------------------------------------------


def main() -> int:
    """Exit 0, or 1 when a truth did not hold."""
    parser = argparse.ArgumentParser(prog="make histories")
    parser.add_argument("count", type=int, nargs="?", default=20_000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--failures", type=int, default=3, help="end after so many seeds that fail")
    parser.add_argument("--out", type=Path, default=Path(".cartsync/histories"), help="where scenario files go")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    began = told = time.monotonic()
    done = 0
    failed: dict[int, list[tuple[str, str]]] = {}
    with multiprocessing.Pool(options.processes) as pool:
        for number, failures in enumerate(pool.imap(_check_chunk, chunks)):
            done += len(chunks[number])
            for seed, name, said in failures:
                failed.setdefault(seed, []).append((name, said))
            now = time.monotonic()
            if now - told > TELL_EVERY_S or done == len(seeds):
                told = now
                rate = done / (now - began)
                _say(f"histories: {done} of {len(seeds)}, {rate:.0f}/s, {len(failed)} failed")
            if len(failed) >= options.failures:
                pool.terminate()
                break
    for seed, found in list(failed.items())[: options.failures]:
        _tell(seed, found, options.out)
    return 1 if failed else 0


def _tell(seed: int, found: list[tuple[str, str]], out: Path) -> None:
    for name, said in found:
        _say(f"seed {seed}: {name}: {said}")
    name, _ = found[0]
    smallest = shrink(TRUTHS[name], story(Random(seed), ties=seed % 8 == 7), seed)
    _say(f"seed {seed}, smallest: {failure_of(TRUTHS[name], smallest, seed)}")
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{seed}.json"
    title = f"history {seed}: {name}"
    file.write_text(json.dumps(scenario_of(smallest, title), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _say(f"seed {seed}: cartsync scenario {file}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
