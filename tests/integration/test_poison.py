"""Events that the contract refuses: put aside untouched, once, and nothing waits for them."""

import time
from typing import NamedTuple

from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.shops.by_hand import ACCOUNT, ShopOrder, line
from worker import __version__
from worker.ports import DeadLetter

Header = tuple[str, bytes]


class Poison(NamedTuple):
    """A record to be refused, and why."""

    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]
    reason: str


def poisons(order: ShopOrder) -> list[Poison]:
    """One for each reason that a small record can have; those with a key are in the partition of the order."""
    key = order.subject.encode()
    good = order.event("items_shipped", {"shipment_id": "x", "lines": [{"line_id": "mug", "quantity": 1}]})
    mark = (("x-shop-batch", order.subject.encode()), ("traceparent", b"\xff not a text"))
    binary = (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"b1"),
        ("ce_source", b"/shops/camisas"),
        ("ce_type", b"order.items_shipped"),
        ("ce_time", b"yesterday"),
        ("ce_subject", key),
        ("content-type", b"application/json"),
    )
    return [
        Poison(None, good, (), "no_key"),
        Poison(key, b"\xff\xfe{}", mark, "not_utf8"),
        Poison(key, b"not json", (), "not_json"),
        Poison(key, good.replace(b'"specversion":"1.0"', b'"specversion":"0.3"'), mark, "not_cloudevents"),
        Poison(key, b"{}", binary, "not_cloudevents"),
        Poison(key, good.replace(b"items_shipped", b"items_packed"), (), "unknown_type"),
        Poison(key, good.replace(b'"quantity":1', b'"quantity":-3'), mark, "invalid_data"),
        Poison(key, good.replace(b'"quantity"', b'"quantiy"'), (), "invalid_data"),
    ]


def split(letter: DeadLetter) -> tuple[tuple[Header, ...], dict[str, str]]:
    """The record's own headers, and what was said of it."""
    ours = [(name, text) for name, text in letter.headers if name.startswith("x-dlq-")]
    own = letter.headers[: len(letter.headers) - len(ours)]
    return tuple((name, bytes(text)) for name, text in own), {name[6:]: text.decode() for name, text in ours}


async def write_with_poison(stage: Stage, order: ShopOrder) -> list[Poison]:
    """Two good events of an order, and between them everything that can be refused."""
    await order.confirm(line("mug", 1000))
    written = poisons(order)
    for poison in written:
        await stage.write(poison.key, poison.value, poison.headers)
    await order.ship("s1", mug=1)
    return written


async def test_refused_records_are_put_aside_as_they_are(open_stage: OpenStage) -> None:
    """Key, value and headers are untouched, ours come after them, and the good events around them are told."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/poisoned")
    written = await write_with_poison(stage, order)
    await stage.agreed({order.subject: (1000, 0)})
    letters = await stage.dead_letters(len(written))
    assert sorted((letter.key or b"", letter.value or b"", *split(letter)[0]) for letter in letters) == sorted(
        (poison.key or b"", poison.value, *poison.headers) for poison in written
    )
    reasons = {(poison.value, poison.key, poison.headers): poison.reason for poison in written}
    partition = str((await worker.shown(order.subject, "settled")).partition)
    for letter in letters:
        own, said = split(letter)
        assert said.keys() == {"reason", "detail", "topic", "partition", "offset", "timestamp", "version"}
        assert said["reason"] == reasons[letter.value or b"", letter.key, own]
        assert said["detail"]
        assert said["topic"] == stage.settings.event_topic
        assert said["version"] == __version__
        assert abs(int(said["timestamp"]) / 1000 - time.time()) < 60
        if letter.key is not None:
            assert said["partition"] == partition
    with_key = [split(letter)[1] for letter in letters if letter.key is not None]
    assert [int(said["offset"]) for said in with_key] == sorted({int(said["offset"]) for said in with_key})


async def test_a_killed_worker_puts_nothing_aside_twice(open_stage: OpenStage) -> None:
    """Poison before, around and after a `kill -9`: each record is in the dead-letter topic exactly once."""
    stage = await open_stage(partitions=1)
    first = await stage.started()
    orders = [stage.order(f"{ACCOUNT}/{number}") for number in range(60)]
    written = []
    second = None
    for number, order in enumerate(orders):
        written += await write_with_poison(stage, order)
        if number == 30:
            first.kill()
            second = stage.start()
    assert second is not None
    assert first.log("event_refused"), "the kill came before any record was refused"
    await second.serving(1)
    await stage.agreed({order.subject: (1000, 0) for order in orders})
    letters = await stage.dead_letters(len(written))
    found = sorted((letter.value or b"", letter.key or b"") for letter in letters)
    assert found == sorted((poison.value, poison.key or b"") for poison in written)
    assert (await second.status()).partitions[0].lag == 0
