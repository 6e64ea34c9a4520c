"""One of the producers is hostile: for as long as the shop is open it writes whatever a broker takes.

It has an account of its own, whose orders nobody compares, and does what it can about the orders of the others. What
must be refused of it is known for each record; all the rest must change nothing about any order but its own.
"""

import asyncio
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c
from msgspec import Struct

from tests.chaos.checks import Place, Refused
from tests.contract.batches import Written, batch
from tests.shops.stream import HOSTILE_ACCOUNT, UNKNOWN_ACCOUNT
from worker.core.intake import VALUE_MAX_BYTES
from worker.core.placing import Placing
from worker.kafka.settings import KafkaSettings

MIB = 2**20
BYTES_PER_S = 256 * 1024
"""What it writes on average, before compression; a bomb counts for a part of what comes out of it."""
_BOMB_DIVISOR = 400
_LEAST_BYTES = 2_048
"""What the smallest record counts for."""
_SMALL_IN_A_ROUND = 150
_SEEN_MAX = 3_000
_HUGE_ORDERS, _SMALL_ORDERS, _UNKNOWN_ORDERS = 12, 200, 50
_LINES = 2_000
_DEPTH = 100_000
_UNDER_WAY_MAX = 50
_REQUEST_S = 90.0
"""As for the shop: one that gave up could not tell what is there."""
_TIMES = struct.Struct(">qqqhi")
_TIMES_AT, _CHECKED_AT, _CHECKSUM_AT = 27, 21, 17

Header = tuple[str, bytes]


class Attack(Struct, frozen=True):
    """One record, or one batch that no client of ours would write."""

    kind: str
    key: bytes | None
    value: bytes | None
    reasons: Mapping[int, str] = {}
    """Why its records are refused, by their number; what is not in it is none of ours or changes nothing."""
    headers: tuple[Header, ...] = ()
    partition: int | None = None
    """`None`: where the partitioner puts the key."""
    raw: bytes = b""
    """The batch, when it is one that was made by hand."""
    count: int = 1
    cost_bytes: int = 0


class Seen(Struct, frozen=True):
    """An event of a good order that the brokers have acknowledged."""

    partition: int
    key: bytes
    value: bytes


class _Raw(BatchBuilder):  # type: ignore[misc]  # the library has no types
    """A batch made by hand, as the library's producer sends its own ones: in a sequence, so that none comes twice."""

    def __init__(self, raw: bytes, count: int) -> None:
        self._buffer = bytearray(raw)
        self._closed = True
        self._relative_offset = count

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        now_ms = round(1000 * time.time())
        newest_ms = now_ms + self._relative_offset - 1
        _TIMES.pack_into(self._buffer, _TIMES_AT, now_ms, newest_ms, producer_id, producer_epoch, base_sequence)
        checksum = calc_crc32c(bytes(self._buffer[_CHECKED_AT:]))
        struct.pack_into(">I", self._buffer, _CHECKSUM_AT, checksum)


class Arsenal:
    """Everything that it may write, by the seed."""

    def __init__(self, seed: int, partitions: int) -> None:
        """Takes seconds: it makes bombs."""
        self._random = Random(f"hostile {seed}")
        self._partitions = partitions
        self._placing = Placing("murmur2")
        self._seen: list[Seen] = []
        self._count = 0
        self._huge_count = 0
        self._bombs = deque(
            [
                *(
                    _bomb(name, size * MIB)
                    for name, size in (("zstd", 100), ("gzip", 100), ("zstd", 400), ("gzip", 150))
                ),
                _batch("300,000 headers", (b"k", b"{}", [("", None)] * 300_000), {0: "not_cloudevents"}),
                _batch("15 MiB in one value", (b"k", b"x" * (15 * MIB), [("h", b"v")]), {0: "too_large"}),
            ]
        )

    def saw(self, seen: Seen) -> None:
        """It reads along."""
        if len(self._seen) < _SEEN_MAX:
            self._seen.append(seen)
        else:
            self._seen[self._random.randrange(_SEEN_MAX)] = seen

    def round(self) -> Iterator[Attack]:
        """Something of everything, in any order."""
        makers = [self._huge, self._huge, self._above, self._deep, self._deep, self._batch]
        makers += self._random.choices(self._small(), k=_SMALL_IN_A_ROUND)
        self._random.shuffle(makers)
        return (make() for make in makers)

    def _small(self) -> list[Callable[[], Attack]]:
        alone = [self._own, self._unknown, self._lookalike, self._poison]
        return [*alone, self._wrong_key, self._wrong_partition, self._wrong_origin] if self._seen else alone

    def _batch(self) -> Attack:
        """Each in its turn."""
        self._bombs.append(attack := self._bombs.popleft())
        return self._anywhere(attack)

    # --- events that look right ---

    def _event(self, subject: str, kind: str, data: Any, **more: Any) -> bytes:
        self._count += 1
        event = {
            "specversion": "1.0",
            "id": f"h{self._count}",
            "source": "/shops/hostile",
            "type": f"order.{kind}",
            "time": "2026-03-04T10:12:00Z",
            "subject": subject,
            "data": data,
        }
        return msgspec.json.encode(event | more)

    def _placed(self, kind: str, subject: str, value: bytes, reason: str = "") -> Attack:
        return Attack(kind, subject.encode(), value, {0: reason} if reason else {}, cost_bytes=len(value))

    def _huge(self) -> Attack:
        """An order of 2,000 lines in almost 1 MiB; then all of it is shipped; then as much once more is too much."""
        number, step = divmod(self._huge_count, 3)
        if number >= _HUGE_ORDERS:
            number, step = self._random.randrange(_HUGE_ORDERS), 2
        self._huge_count += 1
        subject = f"{HOSTILE_ACCOUNT}/huge/{number}"
        references = [f"{line:013d}" for line in range(_LINES)]
        if step == 1:
            units = [{"line_id": reference, "quantity": 1} for reference in references]
            value = self._event(subject, "items_shipped", {"shipment_id": "all", "lines": units})
            return self._placed("huge order shipped", subject, value)
        cart = {"currency": "EUR", "lines": [_line(reference, "n" * 410) for reference in references]}
        if step == 0:
            value = self._event(subject, "confirmed", cart)
            assert 0.9 * VALUE_MAX_BYTES < len(value) < VALUE_MAX_BYTES
            return self._placed("huge order", subject, value)
        value = self._event(subject, "cart_updated", cart, time=_now())
        return self._placed("huge order grown", subject, value, "order_too_large")

    def _above(self) -> Attack:
        subject = f"{HOSTILE_ACCOUNT}/above"
        value = self._event(subject, "cancelled", {"reason": "r" * self._random.randint(MIB, 2 * MIB)})
        return self._placed("value above 1 MiB", subject, value, "too_large")

    def _deep(self) -> Attack:
        """JSON nested until decoders give up, as a whole and within an event."""
        subject = f"{HOSTILE_ACCOUNT}/deep"
        nested = b"[" * _DEPTH + b"]" * _DEPTH
        event = self._event(subject, "confirmed", {"currency": "EUR", "lines": None})
        objects = b'{"a":' * _DEPTH + b"1" + b"}" * _DEPTH
        value = self._random.choice((nested, event.replace(b"null", nested), event.replace(b"null", objects)))
        return self._placed("deep JSON", subject, value, "not_json")

    def _own(self) -> Attack:
        """Orders of its own: contradicting, at odds in their stamps, some of it told as the provider's doing."""
        random = self._random
        subject = f"{HOSTILE_ACCOUNT}/own/{random.randrange(_SMALL_ORDERS)}"
        units = [{"line_id": random.choice(("a", "b", "never")), "quantity": random.randint(1, 1_000_000)}]
        name = str(random.randrange(3))
        kind, data = random.choice(
            (
                ("confirmed", {"currency": "EUR", "lines": [_line("a"), _line("b")]}),
                ("items_shipped", {"shipment_id": name, "lines": units}),
                ("items_returned", {"return_id": name, "lines": units, "from": "any"}),
                ("refunded", {"refund_id": name, "amount_minor": 10**12}),
                ("cancelled", {"by": "provider"}),
                ("retracted", {"cancelled": True}),
            )
        )
        more: dict[str, Any] = {"origin": "sequra"} if random.random() < 0.5 else {}
        if random.random() < 0.5:
            more["sequence"] = "9" * random.randint(1, 18)
        return self._placed("orders of its own", subject, self._event(subject, kind, data, **more))

    def _unknown(self) -> Attack:
        subject = f"{UNKNOWN_ACCOUNT}/{self._random.randrange(_UNKNOWN_ORDERS)}"
        value = self._event(subject, "confirmed", {"currency": "EUR", "lines": [_line("a")]})
        return self._placed("unknown account", subject, value)

    def _lookalike(self) -> Attack:
        """Types that look like ours, and one that claims to be."""
        subject = f"{HOSTILE_ACCOUNT}/types"
        kind, reason = self._random.choice(
            (
                ("com.acme.order.confirmed", ""),
                ("Order.confirmed", ""),
                ("order/confirmed", ""),
                ("order.Confirmed", "unknown_type"),
                ("order.confirmed ", "unknown_type"),
            )
        )
        value = self._event(subject, "", {"currency": "EUR", "lines": [_line("a")]}, type=kind)
        return self._placed("foreign types", subject, value, reason)

    # --- poison ---

    def _poison(self) -> Attack:
        random = self._random
        subject = f"{HOSTILE_ACCOUNT}/poison"
        key = subject.encode()
        good = self._event(subject, "confirmed", {"currency": "EUR", "lines": [_line("a")]})
        ahead = self._event(subject, "cancelled", {}, time="2096-03-04T10:12:00Z")
        kind, poisoned, value, reason, headers = random.choice(
            (
                ("null key", None, good, "no_key", ()),
                ("empty key", b"", good, "no_key", ()),
                ("null value", key, None, "", ()),
                ("garbage", key, b"\xff" + random.randbytes(200), "not_utf8", ()),
                ("byte-order mark", key, b"\xef\xbb\xbf" + good, "not_json", ()),
                ("UTF-16", key, good.decode().encode("utf-16"), "not_utf8", ()),
                ("registry framing", key, b"\0\0\0\0\7" + good, "not_json", ()),
                ("half a surrogate pair", key, good.replace(b'"EUR"', rb'"\ud800"'), "not_utf8", ()),
                ("far ahead", key, ahead, "not_cloudevents", ()),
                ("binary mode without attributes", key, b"{}", "not_cloudevents", (("ce_specversion", b"1.0"),)),
                ("a letter's own headers", key, b"{}", "not_cloudevents", _LETTER_HEADERS),
                ("header name that is not UTF-8", key, good, "undecodable", None),
            )
        )
        if headers is None:
            raw = batch(
                (poisoned, value, [("abcd", b"x")]), change=lambda body: body.replace(b"abcd", b"\xff\xfe\xfd\xfc")
            )
            return self._anywhere(Attack(kind, poisoned, value, {0: reason}, raw=raw, cost_bytes=len(raw)))
        reasons = {0: reason} if reason else {}
        return Attack(kind, poisoned, value, reasons, headers, cost_bytes=len(value or b""))

    def _anywhere(self, attack: Attack) -> Attack:
        return msgspec.structs.replace(attack, partition=self._random.randrange(self._partitions))

    # --- what is done about the orders of others ---

    def _cancelled(self, seen: Seen) -> bytes:
        """An event that would end a good order, were it taken."""
        return self._event(seen.key.decode(), "cancelled", {}, time=_now(), sequence="9" * 18)

    def _wrong_key(self) -> Attack:
        seen = self._random.choice(self._seen)
        key = self._random.choice((b'"%b"' % seen.key, seen.key.partition(b"/")[2], b"k", seen.key + b" "))
        return Attack("wrong key", key, self._cancelled(seen), {0: "wrong_partition"})

    def _wrong_partition(self) -> Attack:
        seen = self._random.choice(self._seen)
        other = (seen.partition + self._random.randint(1, self._partitions - 1)) % self._partitions
        return Attack("wrong partition", seen.key, self._cancelled(seen), {0: "wrong_partition"}, partition=other)

    def _wrong_origin(self) -> Attack:
        """An event that was there before, as if the provider had made the change; now and then with another content."""
        seen = self._random.choice(self._seen)
        event = msgspec.json.decode(seen.value) | {"origin": "sequra"}
        if self._random.random() < 0.5:
            event |= {"type": "order.cancelled", "data": {"by": "provider"}, "sequence": "9" * 18, "time": _now()}
        return Attack("known event, wrong origin", seen.key, msgspec.json.encode(event), partition=seen.partition)


_LETTER_HEADERS = (("x-dlq-partition", b"-1"), ("x-dlq-offset", b"none"), ("x-dlq-reason", b"none"))


def _line(reference: str, name: str = "n") -> dict[str, Any]:
    return {"reference": reference, "name": name, "quantity": 1, "unit_price_minor": 100, "total_minor": 100}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _bomb(name: str, size: int) -> Attack:
    """Two records: one that can still be had, and one that fills everything."""
    raw = batch((b"k", b"{}", []), (b"k", bytes(size), []), name=name)
    reasons = {0: "not_cloudevents", 1: "undecodable"}
    return Attack(f"{name} bomb", b"k", None, reasons, raw=raw, count=2, cost_bytes=len(raw) + size // _BOMB_DIVISOR)


def _batch(kind: str, record: Written, reasons: Mapping[int, str]) -> Attack:
    raw = batch(record, name="zstd")
    return Attack(kind, b"k", record[1], reasons, raw=raw, cost_bytes=MIB)


class Hostile:
    """Writes rounds of attacks until its time is over; remembers what must be refused."""

    def __init__(self, settings: KafkaSettings, arsenal: Arsenal, refused: dict[Place, Refused]) -> None:
        """`refused` is added to."""
        self.counts: Counter[str] = Counter()
        self.written = 0
        self._settings = settings
        self._arsenal = arsenal
        self._refused = refused
        self._under_way: deque[tuple[Attack, asyncio.Future[Any]]] = deque()

    async def write(self, until: float) -> None:
        """Returns at `until` (monotonic), once everything is acknowledged."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.bootstrap_servers,
            enable_idempotence=True,
            compression_type="zstd",
            max_request_size=64 * MIB,
            request_timeout_ms=round(1000 * _REQUEST_S),
        )
        await producer.start()
        due = time.monotonic()
        try:
            while due < until:
                for attack in self._arsenal.round():
                    due += max(_LEAST_BYTES, attack.cost_bytes) / BYTES_PER_S
                    if due > until:
                        break
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    await self._send(producer, attack)
            while self._under_way:
                await self._landed(*self._under_way.popleft())
        finally:
            await producer.stop()

    async def _send(self, producer: Any, attack: Attack) -> None:
        topic = self._settings.event_topic
        if attack.raw:
            sent = await producer.send_batch(_Raw(attack.raw, attack.count), topic, partition=attack.partition)
        else:
            headers = list(attack.headers) or None
            sent = await producer.send(topic, attack.value, attack.key, attack.partition, headers=headers)
        self._under_way.append((attack, sent))
        while self._under_way and (self._under_way[0][1].done() or len(self._under_way) > _UNDER_WAY_MAX):
            await self._landed(*self._under_way.popleft())

    async def _landed(self, attack: Attack, sent: asyncio.Future[Any]) -> None:
        place = await sent
        self.written += attack.count
        self.counts[attack.kind] += 1
        for number, reason in attack.reasons.items():
            # What a batch held that nobody can decode is not compared, and of a bomb the small record says nothing.
            value = attack.value if attack.count == 1 else None
            self._refused[place.partition, place.offset + number] = Refused(value, reason)
