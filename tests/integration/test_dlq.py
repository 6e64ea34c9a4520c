"""`cartsync dlq …` on a real Kafka: what workers refused is listed, shown, mended and written again, once."""

import asyncio
import html
import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.test_console import console
from tests.integration.topics import Desk
from tests.kafka_settings import settings_of
from tests.shops.by_hand import ACCOUNT, line
from tests.shops.events import EventSpec, envelope
from worker.core.letters import REPLAYED_FROM
from worker.core.mending import Mended
from worker.core.trust import HEADER, Trust
from worker.errors import FencedError
from worker.kafka.client import Connection, silence_unretrieved_errors
from worker.kafka.replaying import Replay, Replayer
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import create_topics
from worker.orders.letters import letter_of
from worker.tools.letters import desk_on
from worker.tools.local_kafka import LocalKafka

pytestmark = pytest.mark.slow

SECRET = "what-the-receiver-signs-with-0123456789"


class Input(NamedTuple):
    """A record of the event topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 - nobody changes it


class Topics:
    """Topics of a test, of two partitions, with dead letters in them."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    async def refuse(self, partition: int, *records: Input, reason: str = "invalid_data", detail: str = "$: …") -> None:
        """As the owner of a partition does."""
        log = KafkaStateLog(self.settings)
        await log.start()
        owner = log.partition(partition)
        await owner.fence()
        said = {"reason": reason, "detail": detail, "topic": self.settings.event_topic, "partition": str(partition)}
        letters = [letter_of(record, said | {"offset": str(record.offset)}, 10**6, lean=False) for record in records]
        await owner.write([(b"m:none", b"")], letters)
        await owner.close()
        await log.stop()

    async def events(self, partition: int) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
        """What is committed in a partition of the event topic: key, value, headers."""
        here = TopicPartition(self.settings.event_topic, partition)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.bootstrap_servers, isolation_level="read_committed")
        await consumer.start()
        try:
            consumer.assign([here])
            await consumer.seek_to_beginning(here)
            (end,) = (await consumer.end_offsets([here])).values()
            found: list[Any] = []
            while await consumer.position(here) < end:
                found += (await consumer.getmany(here, timeout_ms=500)).get(here, ())
            return [(record.key, record.value, dict(record.headers)) for record in found]
        finally:
            await consumer.stop()


@pytest.fixture
async def topics(kafka: LocalKafka) -> Topics:
    """Of this test's own."""
    settings = settings_of(kafka.bootstrap)
    await create_topics(settings, 2)
    return Topics(settings)


def event(number: int, **data: object) -> Input:
    """A cancellation, as good as the data is."""
    spec = EventSpec("order.cancelled", data, {"subject": f"acme/{number}"})
    return Input(number, 0, f"acme/{number}".encode(), msgspec.json.encode(envelope(spec, number)))


async def test_mended_and_settled(open_stage: OpenStage) -> None:
    """A wrong quantity: found, seen where it is, mended, taken by the worker, told to the provider; and never again."""
    stage = await open_stage(partitions=2)
    await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    await order.confirm(line("mug", 1000, 3))
    await order.ship("s1", mug=-2)
    await stage.dead_letters(1)
    (row,) = await listed(stage)
    assert (row["subject"], row["reason"], row["handled"]) == (order.subject, "invalid_data", "")
    place = f"{row['partition']}/{row['offset']}"
    shown = await stage.command("dlq", "show", place)
    assert [text.strip() for text in shown.out.splitlines() if text.endswith("<-- here")] == [
        '"quantity": -2    <-- here'
    ]
    refused = await stage.command("dlq", "replay", place)
    assert (refused.code, "would be refused again (invalid_data: $.data.lines[0].quantity" in refused.out) == (1, True)
    wrong = await stage.command("dlq", "mend", place, "--set", "data.lines[0].quantity=0")
    assert (wrong.code, "it would still be refused: invalid_data" in wrong.err) == (2, True)
    mend = ("dlq", "mend", place, "--set", "$.data.lines[0].quantity=2")
    dry = await stage.command(*mend, "--dry-run")
    assert (dry.code, json.loads(dry.out[: dry.out.rindex("}") + 1])["data"]["lines"][0]["quantity"]) == (0, 2)
    assert (await listed(stage))[0]["handled"] == ""
    done = await stage.command(*mend)
    assert done.code == 0, done
    await stage.agreed({order.subject: (2000, 1000)})
    assert (await listed(stage))[0]["handled"] == "mended"
    assert await listed(stage, "--filter", "handled=no") == []
    for words in (mend, ("dlq", "replay", place)):
        again = await stage.command(*words)
        assert (again.code, "it was mended already by " in again.out) == (1, True)
    assert "it was mended already" not in (await stage.command("dlq", "show", place)).out
    assert "state     mended already" in (await stage.command("dlq", "show", place)).out


async def listed(stage: Stage, *words: str) -> list[dict[str, object]]:
    """`dlq list`."""
    ran = await stage.command("dlq", "list", "--json", *words)
    assert ran.code == 0, ran
    return [json.loads(text) for text in ran.out.splitlines()]


async def test_what_providers_said_is_replayed_as_it_is(open_stage: OpenStage) -> None:
    """Refused for a secret that workers did not have; once they have it, the same bytes are taken; never mended."""
    stage = await open_stage(partitions=1)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    await order.confirm(line("mug", 1000))
    body = json.loads(order.event("confirmed", {})) | {
        "type": "provider.risk",
        "source": "/cartsync/sequra/webhook",
        "data": {"level": "low_risk"},
    }
    body.pop("sequence")
    key, value = order.subject.encode(), msgspec.json.encode(body)
    await stage.write(key, value, ((HEADER, Trust([SECRET]).sign(key, value)),))
    (letter,) = await stage.dead_letters(1)
    assert dict(letter.headers)["x-dlq-reason"] == b"not_trusted"
    mended = await stage.command("dlq", "mend", "0/0", "--set", "data.level=high_risk")
    assert (mended.code, "its MAC is over the very bytes" in mended.err) == (2, True)
    worker.kill()
    choose = ("dlq", "replay", "--filter", "reason=not_trusted")
    stage.configure(callbacks={"record_secrets": ["another" + SECRET]})
    other = await stage.command(*choose)
    assert (other.code, "would be refused again (not_trusted" in other.out) == (1, True)
    stage.configure(callbacks={"record_secrets": [SECRET]})
    await stage.started()
    ran = await stage.command(*choose)
    assert (ran.code, ran.err) == (0, "1 replayed\n")

    async def risk() -> object:
        shown = await stage.command("order", "show", order.subject, "--json")
        return json.loads(shown.out)["provider"]

    async with asyncio.timeout(30):
        while await risk() is None:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.2)
    assert len(await stage.dead_letters(2)) == 2  # the letter and its marker


async def test_order_that_was_only_refused(topics: Topics, tmp_path: Path) -> None:
    """Who looks for it is told where its events are; who looks for another one, what to try."""
    await topics.refuse(0, event(1, lines=7), event(2, lines=7))
    desk = Desk(topics.settings, tmp_path)
    port = ("--url", "http://127.0.0.1:1")
    for ref in ("acme/1", "1"):
        (refused,) = await desk.json("order", "show", ref, *port, schema="error", code=2)
        assert "1 event of acme/1 was refused: `cartsync dlq list --filter order=acme/1`" in refused["problems"][0]
    (refused,) = await desk.json("order", "show", "nope/x", *port, schema="error", code=2)
    assert "account nope is not configured, configured are: acme" in refused["problems"][0]
    (refused,) = await desk.json("order", "show", "garbage", *port, schema="error", code=2)
    assert "an order is named account/reference" in refused["problems"][0]


async def test_two_who_replay_at_once(topics: Topics) -> None:
    """Who comes later takes it over: the one before can write nothing any more, and nothing is written twice."""
    silence_unretrieved_errors(asyncio.get_running_loop())  # as the command does
    await topics.refuse(1, event(1))
    connection, desk = Connection(topics.settings), await desk_on(topics.settings, None)
    good = event(1)
    assert good.key is not None
    assert good.value is not None
    replay = Replay(0, good.key, Mended(good.key, good.value, []), 1, "replayed")
    first, second = Replayer(connection, 1, "ana@here"), Replayer(connection, 1, "ben@there")
    try:
        await first.open()
        assert await desk.markers(1) == {}
        await second.open()
        assert await desk.markers(1) == {}
        with pytest.raises(FencedError, match="somebody else replays dead letters of partition 1"):
            await first.write([replay])
        assert await second.write([replay]) == [0]
    finally:
        await first.close()
        await second.close()
    (written,) = await topics.events(1)
    assert written[2][REPLAYED_FROM] == f"{topics.settings.dead_letter_topic}/1/0".encode()
    (marker,) = (await desk.markers(1)).values()
    assert (marker.handling, marker.by, marker.to) == ("replayed", "ben@there", f"{topics.settings.event_topic}/1/0")


async def test_many_people(topics: Topics, tmp_path: Path) -> None:
    """Whoever runs the same command at the same time: each event is written once."""
    await topics.refuse(0, *(event(number) for number in range(40)), reason="order_too_large")
    desk = Desk(topics.settings, tmp_path)
    words = ("dlq", "replay", "--filter", "reason=order_too_large", "--rate", "200")
    runs = await asyncio.gather(*(desk.run(*words) for _ in range(3)))
    assert any(ran.code == 0 for ran in runs), runs
    last = await desk.run(*words)
    assert last.code == 0, last
    events = await topics.events(0)
    assert sorted(key for key, _, _ in events) == sorted(f"acme/{number}".encode() for number in range(40))


async def test_in_the_console(open_stage: OpenStage, tmp_path: Path) -> None:
    """A wrong quantity is mended at the page, taken by the worker, told to the provider; the command line then sees it."""
    stage = await open_stage(partitions=2)
    await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    await order.confirm(line("mug", 1000, 3))
    await order.ship("s1", mug=-2)
    await stage.dead_letters(1)
    async with console(stage.settings, tmp_path) as page:
        await page.ready()
        (row,) = (await page.json("/api/dead-letters"))["letters"]
        place = f"{row['partition']}/{row['offset']}"
        csrf = (await page.json("/api/session"))["csrf"]
        left = await page.post("/dead-letters/act", {"csrf": csrf, "command": "replay", "letter": place})
        assert "would be refused again (invalid_data: $.data.lines[0].quantity" in left
        shown = await page.text(f"/dead-letters/{place}/mend?show=personal")
        event = html.unescape(shown[shown.index("<textarea") : shown.index("</textarea>")]).partition(">")[2]
        form = {"csrf": csrf, "event": event.replace('"quantity": -2', '"quantity": 2'), "why": "typo"}
        assert 'name="sure"' in await page.post(f"/dead-letters/{place}/mend", form)
        assert "written as" in await page.post(f"/dead-letters/{place}/mend", form | {"sure": "1"})
        await stage.agreed({order.subject: (2000, 1000)})
        for words in (("dlq", "replay", place), ("dlq", "dismiss", place)):
            again = await stage.command(*words)
            assert (again.code, "it was mended already by local, as " in again.out) == (1, True)
        assert "it was mended already" in await page.post(f"/dead-letters/{place}/mend", form | {"sure": "1"})
        await page.eventually(
            lambda: page.json("/api/dead-letters"), lambda found: found["letters"][0]["handled"] == "mended"
        )


async def test_console_and_command_at_once(topics: Topics, tmp_path: Path) -> None:
    """Whoever replays what matches at the same time: each event is written once."""
    await topics.refuse(0, *(event(number) for number in range(120)), reason="order_too_large")
    desk = Desk(topics.settings, tmp_path)
    async with console(topics.settings, tmp_path) as page:
        await page.ready()
        form = {"csrf": (await page.json("/api/session"))["csrf"], "command": "replay", "reason": "order_too_large"}
        confirm = await page.text("/dead-letters/confirm?command=replay&reason=order_too_large")
        assert "Replay 120 dead letters?" in confirm
        words = ("dlq", "replay", "--filter", "reason=order_too_large")
        ran, _, _ = await asyncio.gather(
            desk.run(*words), page.post("/dead-letters/act", form), page.post("/dead-letters/act", form)
        )
        assert ran.code in (0, 1, 75), ran
        last = await desk.run(*words)
        assert last.code == 0, last
    events = await topics.events(0)
    assert sorted(key for key, _, _ in events) == sorted(f"acme/{number}".encode() for number in range(120))


async def test_replay_of_a_choice(topics: Topics, tmp_path: Path) -> None:
    """Filters choose; what would be refused again is left and named; a dry run writes nothing; each line as its schema
    says.
    """
    await topics.refuse(0, event(1), event(2, lines=7), Input(3, 0, None, b"{}"), reason="invalid_data")
    await topics.refuse(1, event(4), reason="order_too_large")
    desk = Desk(topics.settings, tmp_path)
    assert len(await desk.json("dlq", "list", schema="dlq_list")) == 4
    assert [
        row["event_id"] for row in await desk.json("dlq", "list", "--filter", "account=acme", schema="dlq_list")
    ] == ["e1", "e2", "e4"]
    (view,) = await desk.json("dlq", "show", "0/1", schema="dlq_show")
    assert (view["letter"]["type"], view["headers"]["x-dlq-reason"]) == ("order.cancelled", "invalid_data")
    words = ("dlq", "replay", "--filter", "reason=invalid_data")
    dry = await desk.json(*words, "--dry-run", schema="dlq_replay", code=1)
    assert await topics.events(0) == []
    done = await desk.json(*words, schema="dlq_replay", code=1)
    assert [line["done"] for line in dry] == [line["done"] for line in done]
    assert {line["letter"]: line["done"] for line in done} == {"0/0": True, "0/1": False, "0/2": False}
    details = [line["detail"] for line in done if not line["done"]]
    assert any(
        "it would be refused again (invalid_data: $.data: expected no member lines): mend it" in each
        for each in details
    )
    assert any("it has no key: mend it first" in each for each in details)
    assert [key for key, _, _ in await topics.events(0)] == [b"acme/1"]
    again = await desk.json("dlq", "replay", "0/0", "9/9", schema="error", code=2)
    assert again[0]["problems"] == ["9/9: the dead-letter topic has 2 partitions, the first is 0"]
    missing = await desk.json("dlq", "replay", "0/77", "1/0", "--again", schema="dlq_replay", code=1)
    assert [(line["letter"], line["done"]) for line in missing] == [("0/77", False), ("1/0", True)]
    forced = await desk.json("dlq", "replay", "0/1", "--force", schema="dlq_replay")
    assert forced[0]["to"].startswith(f"{topics.settings.event_topic}/0/")
    dismiss = ("dlq", "dismiss", "--filter", "reason=invalid_data")
    for options, left in ((["--dry-run"], 1), ([], 0)):
        (gone,) = await desk.json(*dismiss, *options, schema="dlq_replay")
        assert (gone["letter"], gone["done"], gone["to"]) == ("0/2", True, "")
        assert len(await desk.json("dlq", "list", "--filter", "handled=no", schema="dlq_list")) == left
    (row,) = await desk.json("dlq", "list", "--filter", "handled=dismissed", schema="dlq_list")
    assert row["offset"] == 2
    assert len(await topics.events(0)) == 2
    (refused,) = await desk.json("dlq", "replay", schema="error", code=2)
    assert "name letters" in refused["problems"][0]


async def test_mending_in_other_ways(topics: Topics, tmp_path: Path) -> None:
    """A whole event instead; a key where there was none, and where it belongs; what cannot be told is asked for."""
    good = json.loads(event(5).value or b"")
    await topics.refuse(1, Input(0, 0, b"acme/5", b"not json"), Input(1, 0, None, event(6).value), reason="not_json")
    desk = Desk(topics.settings, tmp_path)
    (refused,) = await desk.json("dlq", "mend", "1/0", "--set", "time=now", schema="error", code=2)
    assert "--file" in refused["problems"][0]
    (refused,) = await desk.json("dlq", "mend", "1/1", "--key", "acme/6", schema="error", code=2)
    assert "pass --partition" in refused["problems"][0]
    (line,) = await desk.json("dlq", "mend", "1/1", "--partition", "0", schema="dlq_replay")
    assert line["to"] == f"{topics.settings.event_topic}/0/0"
    (tmp_path / "event.json").write_text(json.dumps(good))
    (line,) = await desk.json("dlq", "mend", "1/0", "--file", "event.json", schema="dlq_replay")
    assert line["to"] == f"{topics.settings.event_topic}/1/0"
    ((key, value, headers),) = await topics.events(1)
    assert (key, json.loads(value), list(headers)) == (b"acme/5", good, [REPLAYED_FROM])
    (tmp_path / "cartsync.toml").write_text(
        (tmp_path / "cartsync.toml").read_text().replace("[kafka]\n", '[kafka]\npartitioner = "murmur2"\n')
    )
    (refused,) = await desk.json("dlq", "mend", "1/1", "--again", schema="error", code=2)
    assert "nothing was changed" in refused["problems"][0]
    (line,) = await desk.json("dlq", "mend", "1/1", "--key", "acme/6", "--again", schema="dlq_replay")
    assert line["done"]
