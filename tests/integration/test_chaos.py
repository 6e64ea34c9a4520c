"""A small run of `make chaos`, and that its checks would see what must not be."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from schemas.state import OrderRecord
from tests.chaos.checks import BORNE_CODES, Log, Refused, check_workers, is_freeze_gap, mismatches_in_letter
from tests.chaos.hostile import Arsenal, Attack, Seen
from tests.chaos.injector import InjectedFault
from tests.chaos.plan import SHORT, FaultKind
from tests.chaos.processes import Ending
from tests.chaos.recorder import Recorder, Relapse, update_in, write_expected
from tests.chaos.run import Options, run_chaos
from tests.chaos.workers import quantile
from tests.shops.stream import Expected, Workload, make_order, number_of, subject_of
from worker.core.intake import decode
from worker.core.placing import Placing
from worker.core.plan import Send, plan
from worker.core.record import apply_event
from worker.errors import MalformedEventError
from worker.kafka.decoding import salvaged
from worker.model.exchange import Exchange
from worker.model.order import reference_of
from worker.model.provider import Destination, Question
from worker.ports import UndecodableRecord
from worker.providers.sequra import Sequra
from worker.providers.sequra.options import SequraAccount
from worker.sandbox.attempts import Attempt

NOW = datetime.now(UTC)
ACCOUNT = SequraAccount("acme", "sequra", "http://provider.example", "acme", "acme", "secret")
PARTITIONS = 6
SECONDS = 60.0
"""For which things go wrong."""
FIRST: tuple[FaultKind, ...] = (
    "kill receiver",
    "freeze worker, longer than the lease",
    "kill broker: group coordinator",
    "kill worker",
)
"""Kinds of faults that must be among them."""


@pytest.mark.timeout(280)
async def test_a_small_cluster_under_faults(kafka_jars: Path, tmp_path: Path) -> None:
    """Workers, brokers and receivers killed and frozen, three providers at fault: all orders agree, and no more."""
    said: list[str] = []
    options = Options(folder=tmp_path, orders=480, seconds=SECONDS, seed=4, gap_s=4.0, first=FIRST, jars=kafka_jars)
    found = await run_chaos(options, said.append)
    assert not found.violations, "\n".join([*found.violations, *said])
    kinds = {fault.kind for fault in found.injected}
    assert set(FIRST) <= kinds
    assert found.takeovers
    assert found.events > 7 * options.orders
    assert found.poisoned
    assert sum(found.provider.faults.values()) > 50
    for pushes in (found.provider.pushes, *(merchant.pushes for merchant in found.provider.merchants)):
        assert min(pushes["late"], pushes["doubled"], pushes["lost"], pushes["taken"]) > 0, pushes
    assert all(merchant.attempts > 100 for merchant in found.provider.merchants)
    assert found.results > options.orders
    assert {"undecodable", "wrong_partition", "too_large", "not_json"} <= found.refused.keys()
    assert any("bomb" in kind for kind in found.hostile)
    assert not [pid for pid in found.pids if _exists(pid)]


def test_the_shop_counts_as_the_worker_does(tmp_path: Path) -> None:
    """Of every order: what the shop's own arithmetic wants held is what the worker would send, to the cent."""
    shop = Workload(11, 150, 60.0, NOW)
    records: dict[str, OrderRecord] = {}
    destination = Destination(ACCOUNT, Sequra())
    refused = poisoned = 0
    for offset, event in enumerate(shop.events()):
        poisoned += event.is_poisoned
        try:
            read = decode(event.key, event.value, {}, round(1000 * (NOW.timestamp() + 60)))
        except MalformedEventError:
            refused += event.is_poisoned
            continue
        assert read is not None
        record = records.get(read.subject, OrderRecord())
        records[read.subject] = apply_event(
            record, read, position=offset, revision=offset + 1, now_ms=0, destination=destination
        )
    assert len(records) == len(shop.expected) == 150
    assert refused == poisoned > 0
    for subject, record in records.items():
        owed = plan(record, subject, destination)
        assert isinstance(owed, Send), owed
        step = Sequra().next_step(Question(reference_of(subject), ACCOUNT, owed.update))
        assert isinstance(step, Exchange)
        assert update_in(step.request.body) == shop.expected[number_of(subject)], subject


def _reasons(attack: Attack, placing: Placing) -> dict[int, str]:
    """What a worker makes of it, without Kafka."""
    records: list[Any] = list(salvaged(attack.raw, 0)) if attack.raw else [attack]
    reasons = {}
    for record in records:
        offset = getattr(record, "offset", 0)
        if isinstance(record, UndecodableRecord):
            reasons[offset] = "undecodable"
            continue
        key = record.key
        partition = attack.partition
        if partition is None:
            partition = placing.partition(key or b"", PARTITIONS)
        try:
            read = decode(key, record.value, dict(record.headers), round(1000 * NOW.timestamp()))
            if read is not None:
                placing.check(key, read.subject, partition, PARTITIONS)
        except MalformedEventError as error:
            reasons[offset] = error.reason
    return reasons


def test_what_a_hostile_producer_writes_is_refused_as_it_says() -> None:
    """Everything in the arsenal against the door alone; the growth of huge orders needs a state, so it is left out."""
    placing = Placing("murmur2")
    arsenal = Arsenal(5, PARTITIONS)
    for event in Workload(5, 20, 60.0, NOW).events():
        if not event.is_poisoned and event.key is not None:
            arsenal.saw(Seen(placing.partition(event.key, PARTITIONS), event.key, event.value))
    kinds = set()
    for attack in (attack for _ in range(6) for attack in arsenal.round()):
        kinds.add(attack.kind)
        # So many headers are few enough in bytes for the library, which is not asked here.
        if attack.kind not in ("huge order grown", "300,000 headers"):
            assert _reasons(attack, placing) == dict(attack.reasons), attack.kind
    assert len(kinds) > 25


def _attempt(number: int, order: int, revision: int, applied_s: float) -> Attempt:
    merchant, _, reference = subject_of(order).partition("/")
    key = f"{quote(subject_of(order), safe='')}:{revision}"
    attempt = Attempt(number, NOW, "/", merchant, reference, key, "")
    attempt.applied_at = NOW + timedelta(seconds=applied_s)
    return attempt


def _body(wanted: Expected) -> bytes:
    """An update with such totals; its items are of no matter here."""
    carts: dict[str, Any] = {
        name: {"order_total_with_tax": minor, "items": []}
        for name, minor in (("shipped_cart", wanted.shipped_minor), ("unshipped_cart", wanted.unshipped_minor))
    }
    return msgspec.json.encode({"order": carts | {"delivery_address": {"city": "Vigo"}}})


def test_recorder_sees_relapses_repeats_and_differences(tmp_path: Path) -> None:
    """An older revision after a newer one, the same one twice, another content for it, an order that is not right."""
    right = [update_in(_body(Expected(100 * number, 5, b""))) for number in range(3)]
    write_expected(tmp_path / "wanted", right)
    with Recorder(3, tmp_path / "log") as recorder:
        recorder.expect(tmp_path / "wanted")
        assert len(recorder.differing()) == 3

        def applied(number: int, order: int, revision: int, wanted: Expected) -> None:
            key = tuple(subject_of(order).split("/", 1))
            assert len(key) == 2
            recorder.applied(2, _attempt(number, order, revision, number), key, _body(wanted))

        applied(1, 0, 10, right[0])
        applied(2, 1, 11, right[0])
        applied(3, 1, 15, right[1])
        assert recorder.differing() == [2]
        applied(4, 1, 15, right[1])
        assert (recorder.relapses, recorder.repeat_count, dict(recorder.oddities)) == ([], 1, {})

        applied(5, 1, 11, right[0])
        applied(6, 0, 10, right[2])
        report = recorder.report()
    assert [(of.subject, of.revision, of.newest, of.slot) for of in report.relapses] == [(subject_of(1), 11, 15, 2)]
    assert report.differing == 3
    assert [of.relapsed for of in report.differences] == [False, True, False]
    assert report.oddities == [f"two contents of revision 10 of {subject_of(0)} (1 ×)"]


def test_what_a_freeze_explains(tmp_path: Path) -> None:
    """Only what the frozen worker itself sent right after a freeze that was too long for the hold."""
    at = NOW.timestamp()

    def explained(slot: int, frozen_s: float, received_s: float) -> bool:
        fault = InjectedFault("freeze worker, longer than the lease", "worker", at - frozen_s, at, slot=1)
        received = NOW + timedelta(seconds=received_s)
        return is_freeze_gap(Relapse("acme/1", slot, 1, 2, 3, received, received, None), [fault], SHORT)

    assert explained(slot=1, frozen_s=20, received_s=0.01)
    assert not explained(slot=0, frozen_s=20, received_s=0.01)
    assert not explained(slot=1, frozen_s=6, received_s=0.01)
    assert not explained(slot=1, frozen_s=20, received_s=8)
    assert not explained(slot=1, frozen_s=20, received_s=-8)


def test_what_is_wrong_in_a_dead_letter() -> None:
    """Another reason, another value, and a value that is cut without a word."""

    def wrong(value: bytes | None, reason: str = "not_json", **more: bytes) -> list[str]:
        said = {"x-dlq-reason": reason.encode()} | {f"x-dlq-{name}": text for name, text in more.items()}
        return list(mismatches_in_letter(Refused(b"[[[[", "not_json"), value, said))

    assert wrong(b"[[[[") == wrong(b"[[", truncated=b"value 4 bytes") == wrong(None, truncated=b"") == []
    assert wrong(b"[[[[", "no_key") == ["for no_key, not for not_json"]
    assert wrong(b"[[") == wrong(b"][", truncated=b"") == ["not the value that was written"]
    assert not list(mismatches_in_letter(Refused(None), b"any", {"x-dlq-reason": b"undecodable"}))


def test_which_endings_are_wrong() -> None:
    """SIGTERM ends one that has not begun; else a worker leaves with 0, and by itself only with a code that is borne."""
    logs = [Log("begun", {"worker_starting": 1}, [], []), Log("new", {}, [], [])]

    def wrong(worker: str, code: int, *, wanted: bool, borne: frozenset[int] = BORNE_CODES) -> bool:
        return bool(check_workers(logs, [Ending(worker, code, 0.0, wanted)], borne))

    assert not wrong("begun", 0, wanted=True)
    assert not wrong("new", -15, wanted=True)
    assert wrong("begun", -15, wanted=True)
    assert wrong("new", -9, wanted=True)
    assert not wrong("begun", 75, wanted=False)
    assert wrong("begun", 75, wanted=False, borne=frozenset())
    assert wrong("begun", 64, wanted=False)


def test_quantiles_of_a_histogram() -> None:
    """Within a bucket evenly; above the last bound nothing is known but the bound."""
    counts = {0.1: 50.0, 0.5: 90.0, 1.0: 90.0, float("inf"): 100.0}
    assert [quantile(counts, part) for part in (0.25, 0.5, 0.7, 0.99)] == pytest.approx([0.05, 0.1, 0.3, 1.0])
    assert quantile({}, 0.99) == 0.0


def test_an_order_is_the_same_each_time() -> None:
    """The seed decides: another one makes another order."""
    assert make_order(3, 17) == make_order(3, 17)
    assert make_order(3, 17) != make_order(4, 17)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
