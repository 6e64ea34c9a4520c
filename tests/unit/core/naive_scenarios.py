"""Scenario files against the naive model: what a file expects of carts and status must be what the model says.

Only what follows from the events alone is looked at: status without HTTP, both carts, the reason of a cancellation.
"""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.unit.core.naive_carts import Json, NaiveItem, NaiveOrder, naive_order
from worker.tools.scenario.matching import differences

START = datetime(2026, 1, 1, tzinfo=UTC)
ITEM_MEMBERS = ("type", "reference", "name", "quantity", "total_with_tax")


def disagreements(file: Path) -> tuple[int, list[str]]:
    """How many expectations the model could be asked about, and where it says something else."""
    return Play(json.loads(file.read_text(encoding="utf-8"))).run()


class Play:
    """One scenario, its events told to the naive model."""

    def __init__(self, scenario: Json) -> None:
        self.scenario = copy.deepcopy(scenario)
        self.logs: dict[str, list[Json]] = {}
        self.since: dict[str, list[NaiveOrder]] = {}
        """What each order was after each run since the last look at requests."""
        self.told = 0
        self.asked = 0
        self.found: list[str] = []

    def run(self) -> tuple[int, list[str]]:
        """Every step in order."""
        if any("expect_dead_letters" in step for step in self.scenario["steps"]):
            return 0, []
        for number, step in enumerate(self.scenario["steps"], 1):
            for line in self._step(step):
                self.found.append(f"step {number}: {line}")
        return self.asked, self.found

    def _step(self, step: Json) -> Iterator[str]:
        if "event" in step:
            self._tell(step["event"])
        elif "record" in step:
            self._record(step["record"])
        elif "run" in step:
            for subject, log in self.logs.items():
                self.since.setdefault(subject, []).append(naive_order(log))
        elif "expect_order" in step:
            yield from self._order(step["expect_order"])
        elif isinstance(step.get("expect_requests"), list):
            yield from self._requests(step["expect_requests"])
            self.since = {subject: [naive_order(log)] for subject, log in self.logs.items()}

    def _tell(self, event: Json) -> None:
        self.told += 1
        time = (START + timedelta(seconds=self.told)).isoformat()
        whole = {"source": "/test", "id": f"e{self.told}", "time": time} | event
        if whole["type"].startswith("order."):
            self.logs.setdefault(whole["subject"], []).append(whole)

    def _record(self, record: Json) -> None:
        headers = record.get("headers") or {}
        if "ce_specversion" in headers:
            event = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
            event["data"] = json.loads(record["value"])
        elif isinstance(record.get("value"), str):
            event = json.loads(record["value"])
        else:
            return
        if event["type"].startswith("order."):
            self.logs.setdefault(event["subject"], []).append(event)

    def _order(self, expected: Json) -> Iterator[str]:
        order = naive_order(self.logs.get(expected["subject"], []))
        self.asked += 1
        status = expected.get("status", order.state)
        if status in ("settled", "owed"):
            status = "ready"
        if status not in ("parked", order.state):
            yield f"status {status}, model {order.state} {order.contradictions}"
        if order.state == "inconsistent" and "reason_contains" in expected:
            texts = expected["reason_contains"]
            for text in [texts] if isinstance(texts, str) else texts:
                if not any(text in word for words in order.contradictions for word in words) and status != "parked":
                    yield f"reason {text!r}, model {order.contradictions}"
        seen: dict[str, Any] = {}
        for cart, items in (("shipped", order.shipped), ("unshipped", order.unshipped)):
            seen[f"{cart}_minor"] = None if items is None else sum(item[4] for item in items)
            seen[cart] = None if items is None else [_view(item) for item in items]
        yield from differences({name: expected[name] for name in seen if name in expected}, seen, expected["subject"])

    def _requests(self, expected: list[Json]) -> Iterator[str]:
        for pattern in expected:
            body = pattern.get("body", {})
            body = body.get("$exact", body)
            order = body.get("order", {})
            order = order.get("$exact", order)
            wanted = {name: order[name] for name in ("shipped_cart", "unshipped_cart") if name in order}
            if "cancellation_reason" in order:
                wanted["cancellation_reason"] = order["cancellation_reason"]
            if "cancellation_reason" in order.get("$absent", []):
                wanted["$absent"] = ["cancellation_reason"]
            if not wanted:
                continue
            self.asked += 1
            wanted = _known(wanted)
            states = self._states(pattern)
            closest = [differences(wanted, self._body(state), "body") for state in states]
            if closest and all(closest):
                yield from closest[-1]

    def _states(self, pattern: Json) -> list[NaiveOrder]:
        url = str(pattern.get("url", ""))
        many = [
            state
            for subject, states in self.since.items()
            for state in states
            if state.shipped is not None and (not url or subject.partition("/")[2].split("/")[0] in url)
        ]
        return many or [state for states in self.since.values() for state in states if state.shipped is not None]

    def _body(self, order: NaiveOrder) -> Json:
        assert order.shipped is not None
        assert order.unshipped is not None
        body: Json = {}
        for cart, items in (("shipped_cart", order.shipped), ("unshipped_cart", order.unshipped)):
            body[cart] = {
                "order_total_with_tax": sum(item[4] for item in items),
                "items": [_wire(item) for item in items],
            }
        if order.cancellation is not None:
            account = next(iter(self.scenario.get("accounts", {"acme": {}}).values()))
            given, by_shopper = order.cancellation
            default = account.get("default_cancellation_reason", "unspecified")
            reason = account.get("cancellation_reasons", {}).get(given, given)
            if reason is None or not reason.replace("_", "").isalnum() or not reason.islower():
                reason = "customer_cancel" if by_shopper else default
            body["cancellation_reason"] = reason
        return body


def _view(item: NaiveItem) -> Json:
    kind, reference, _, quantity, total = item
    seen: Json = {"type": kind, "total_minor": total}
    return seen | ({} if reference is None else {"reference": reference}) | ({"quantity": quantity} if quantity else {})


def _wire(item: NaiveItem) -> Json:
    kind, reference, name, quantity, total = item
    seen: Json = {"type": kind, "total_with_tax": total}
    seen |= {} if reference is None else {"reference": reference}
    seen |= {} if name is None else {"name": name}
    return seen | ({"quantity": quantity} if quantity else {})


def _known(wanted: Json) -> Json:
    """Without members that the model knows nothing of."""
    for cart in ("shipped_cart", "unshipped_cart"):
        if cart in wanted:
            inner = wanted[cart].get("$exact", wanted[cart])
            inner = {name: inner[name] for name in ("order_total_with_tax", "items") if name in inner}
            if "items" in inner:
                inner["items"] = [
                    {name: value for name, value in item.get("$exact", item).items() if name in ITEM_MEMBERS}
                    for item in inner["items"]
                ]
            wanted[cart] = inner
    return wanted
