"""What operators do with dead letters at the console: by the code of `cartsync dlq`, over the in-memory broker."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.shops.events import EventSpec, envelope
from tests.unit.web.console.scene import Scene, csrf, get, get_json
from worker.core.letters import REPLAYED_FROM, Marker, read_marker
from worker.core.mending import Mended
from worker.core.trust import HEADER, Trust
from worker.kafka.replaying import Replay
from worker.sim.log import MemoryLog
from worker.tools.console.letters import AtTheDesk
from worker.tools.demo.letters import MemoryDesk
from worker.tools.letters import Writes
from worker.web.console.auth import User
from worker.web.console.operator import STOPPED, ActionProgress, NoLetters

SECRET = "what-the-receiver-signs-with-0123456789"
PAGE = {"Accept": "text/html"}


class Viewer:
    """Whoever asks may look."""

    async def who(self, _request: object) -> User:
        """A viewer."""
        return User("ben", "viewer")


def event(number: int, **data: object) -> bytes:
    """A cancellation, as good as the data is."""
    spec = EventSpec("order.cancelled", data, {"subject": f"acme/{number}"})
    return json.dumps(envelope(spec, number)).encode()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Letters 0 to 3: two that would be taken now, one that is wrong, one that is right and of another kind."""
    found = Scene(tmp_path)
    for number in (0, 1):
        found.refuse(event(number), "$: too large", "order_too_large", key=f"acme/{number}".encode())
    found.refuse(event(2, lines=7, note="ana"), "$.data: expected no member lines", key=b"acme/2")
    found.refuse(event(3), "$: …", key=b"acme/3")
    return found


class Raced(MemoryDesk):
    """Somebody else begins as soon as we have, and deals with a letter."""

    def __init__(self, log: MemoryLog, other: Replay) -> None:
        super().__init__(log)
        self._other = other

    def writes(self, partition: int, by: str, why: str) -> Writes:
        """Ours, fenced by theirs."""
        ours, theirs = super().writes(partition, by, why), super().writes(partition, "ben", "")
        begin = ours.open

        async def opened() -> None:
            await begin()
            await theirs.open()
            await theirs.write([self._other])

        ours.open = opened  # type: ignore[method-assign]
        return ours


class FencedAfterOne(MemoryDesk):
    """Somebody else begins after our first transaction."""

    def writes(self, partition: int, by: str, why: str) -> Writes:
        """One time."""
        ours = super().writes(partition, by, why)
        write = ours.write

        async def once(replays: Sequence[Replay]) -> list[int]:
            offsets = await write(replays)
            self.epoch += 1
            return offsets

        ours.write = once  # type: ignore[method-assign]
        return ours


def markers(scene: Scene) -> list[Marker]:
    """What was dealt with."""
    found = [read_marker(each.headers) for each in scene.log.dead_letters]
    return [each for each in found if each is not None]


def written(scene: Scene) -> list[tuple[bytes | None, Any, str]]:
    """Keys, values and origins of what is in the event topic."""
    return [
        (each.key, json.loads(each.value or b""), dict(each.headers)[REPLAYED_FROM].decode())
        for partition in range(2)
        for each in scene.log.records(partition)
    ]


async def post(scene: Scene, path: str, status: int, data: Any = None, **options: Any) -> tuple[str, str]:
    """What is answered: the text, and where it leads."""
    options.setdefault("headers", PAGE)
    async with (
        aiohttp.ClientSession() as session,
        session.post(scene.url + path, data=data, allow_redirects=False, **options) as response,
    ):
        text = await response.text()
        assert response.status == status, text
        return text, response.headers.get("Location", "")


def said(text: str) -> str:
    """A page's text in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text))


def hidden(text: str, action: str) -> dict[str, str]:
    """What a form sends along."""
    form = text[text.index(f'action="{action}"') :]
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")])
    return {name: html.unescape(value) for name, value in found}


async def test_replay(scene: Scene) -> None:
    """It is asked once more, then the event is written as it is; by whom and why is kept with the letter."""
    async with scene.open() as answers:
        page = await get(f"{scene.url}/dead-letters/0/0")
        assert "/dead-letters/confirm?command=replay&amp;letter=0/0" in page
        page = await get(f"{scene.url}/dead-letters/confirm?command=replay&letter=0/0")
        assert "Replay dead letter 0/0?" in said(page)
        _, where = await post(scene, "/dead-letters/act", 303, hidden(page, "/dead-letters/act") | {"why": "raised"})
        assert "written as orders.events/0/0" in said(await get(scene.url + where))
        assert written(scene) == [(b"acme/0", json.loads(event(0)), "cartsync.dlq/0/0")]
        assert markers(scene) == [Marker(0, "replayed", "local", "orders.events/0/0", "raised")]
        await scene.read(answers)
        assert "it was replayed" in said(await get(f"{scene.url}/dead-letters/0/0"))


async def test_never_twice(scene: Scene) -> None:
    """Whoever dealt with it before, here or elsewhere: nothing is written again, and it is said by whom."""
    async with scene.open():
        form = {"csrf": await csrf(scene.url), "command": "replay", "letter": "0/0"}
        await post(scene, "/dead-letters/act", 303, form)
        _, where = await post(scene, "/dead-letters/act", 303, form)
        text = said(await get(scene.url + where))
        assert "it was replayed already by local, as orders.events/0/0" in text
        assert "--again" not in text
        mend = {"csrf": form["csrf"], "event": event(0).decode().replace("e0", "e9"), "sure": "1"}
        _, where = await post(scene, "/dead-letters/0/0/mend", 303, mend)
        assert "it was replayed already" in said(await get(scene.url + where))
        assert len(written(scene)) == 1
    other = Replay(1, b"acme/1", Mended(b"acme/1", event(1), []), 0, "replayed")
    scene.letters = AtTheDesk(Raced(scene.log, other).open)
    async with scene.open():
        form["csrf"] = await csrf(scene.url)
        _, where = await post(scene, "/dead-letters/act", 303, form | {"letter": "0/1"})
        text = said(await get(scene.url + where))
    assert [(each.offset, each.by) for each in markers(scene)] == [(0, "local"), (1, "ben")]
    assert len(written(scene)) == 2
    assert "it was replayed already by ben, as orders.events" in text


async def test_dismiss(scene: Scene) -> None:
    """Needs a reason, and writes no event."""
    async with scene.open():
        page = await get(f"{scene.url}/dead-letters/confirm?command=dismiss&letter=0/2")
        assert re.search(r'name="why"[^>]* required', page)
        form = hidden(page, "/dead-letters/act")
        text, _ = await post(scene, "/dead-letters/act", 400, form)
        assert "dismiss needs a reason" in text
        assert markers(scene) == []
        _, where = await post(scene, "/dead-letters/act", 303, form | {"why": "a test order"})
        assert "banner good" in await get(scene.url + where)
    assert markers(scene) == [Marker(2, "dismissed", "local", "", "a test order")]
    assert written(scene) == []


async def test_still_wrong(scene: Scene) -> None:
    """What workers would refuse again is neither replayed nor written as mended; the place is said, and marked."""
    async with scene.open():
        token = await csrf(scene.url)
        form = {"csrf": token, "command": "replay", "letter": "0/2"}
        _, where = await post(scene, "/dead-letters/act", 303, form)
        assert "would be refused again (invalid_data: $.data" in said(await get(scene.url + where))
        for sure in ("", "1"):
            mend = {"csrf": token, "event": event(2, line=7).decode(), "sure": sure}
            text, _ = await post(scene, "/dead-letters/0/2/mend", 400, mend)
            assert "it would still be refused: invalid_data: $.data" in said(text)
            assert re.search(r"<mark>&#34;data&#34;: \{</mark>", text)
            assert "&#34;line&#34;: 7" in text[text.index("<textarea") :]
        for bad, problem in (("{", "the event is not JSON"), (event(2, lines=7, note="ana").decode(), "nothing was")):
            text, _ = await post(scene, "/dead-letters/0/2/mend", 400, {"csrf": token, "event": bad, "sure": "1"})
            assert problem in said(text)
    assert (written(scene), markers(scene)) == ([], [])


async def test_mend(scene: Scene) -> None:
    """All of it is shown when that was asked for; what would be written is shown once more; then it is written."""
    async with scene.open() as answers:
        page = await get(f"{scene.url}/dead-letters/0/2/mend")
        assert "<textarea" not in page
        assert "ana" not in page
        assert "mend?show=personal" in page
        assert (await answers.letter_to_mend(0, 2, reveal=False, user=User("ana", "operator")))[1] == ""
        page = await get(f"{scene.url}/dead-letters/0/2/mend?show=personal")
        assert "&#34;note&#34;: &#34;ana&#34;" in page[page.index("<textarea") :]
        form = hidden(page, "/dead-letters/0/2/mend") | {
            "event": event(2).decode().replace(", ", ",\r\n"),
            "why": "typo",
        }
        page, _ = await post(scene, "/dead-letters/0/2/mend", 200, form)
        assert written(scene) == []
        assert "Mend and replay dead letter 0/2?" in said(page)
        form = hidden(page, "/dead-letters/0/2/mend") | {"why": "typo"}
        assert form["sure"] == "1"
        _, where = await post(scene, "/dead-letters/0/2/mend", 303, form)
        assert "written as orders.events/0/0" in said(await get(scene.url + where))
    assert written(scene) == [(b"acme/2", json.loads(event(2)), "cartsync.dlq/0/2")]
    assert markers(scene) == [Marker(2, "mended", "local", "orders.events/0/0", "typo")]


async def test_all_that_match(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how many; those that workers would refuse again are left and named; never all of them, by mistake."""
    async with scene.open() as answers:
        assert "Replay all that match (2)" in said(await get(f"{scene.url}/dead-letters?reason=order_too_large"))
        assert "Replay all that match" not in await get(f"{scene.url}/dead-letters")
        page = await get(f"{scene.url}/dead-letters/confirm?command=replay&reason=order_too_large")
        assert "Replay 2 dead letters?" in said(page)
        _, where = await post(scene, "/dead-letters/act", 303, hidden(page, "/dead-letters/act"))
        assert "2 done, 0 not." in said(await get(scene.url + where))
        assert [key for key, _, _ in written(scene)] == [b"acme/0", b"acme/1"]
        await scene.read(answers)
        page = await get(f"{scene.url}/dead-letters/confirm?command=replay&reason=order_too_large")
        assert "nothing matches any more" in said(page)
        token = await csrf(scene.url)
        for wrong in (
            {"command": "replay"},
            {"command": "dismiss", "reason": "x"},
            {"command": "mend", "letter": "0/3"},
        ):
            await post(scene, "/dead-letters/act", 400, {"csrf": token, "why": "x", **wrong})
        await get(f"{scene.url}/dead-letters/confirm?command=replay", 400)
        await get(f"{scene.url}/dead-letters/confirm?command=replay&letter=x", 400)
        form = {"csrf": token, "command": "replay", "reason": "invalid_data"}
        _, where = await post(scene, "/dead-letters/act", 303, form)
        assert "1 done, 1 not." in said(await get(scene.url + where))
        monkeypatch.setattr("worker.web.console.answers.ACT_MAX", 1)
        for number in (4, 5, 6):
            scene.refuse(event(number), "$: …", "unknown", key=b"k")
        await scene.read(answers)
        headers = {"X-CSRF-Token": token}
        text, _ = await post(scene, "/api/dead-letters/replay?reason=unknown", 200, headers=headers)
    assert (len(json.loads(text)["lines"]), json.loads(text)["left"]) == (1, 2)
    assert len(written(scene)) == 4


async def test_what_providers_said(scene: Scene) -> None:
    """Is never mended; with the secret that workers have it is replayed, byte for byte, MAC and all."""
    trust = Trust([SECRET])
    value = json.dumps(json.loads(event(7)) | {"type": "provider.risk", "source": "/cartsync/sequra/webhook"}).encode()
    value = value.replace(b'"data": {}', b'"data":   {"level":"low_risk"}')
    scene.refuse(value, "$: not trusted", "not_trusted", (HEADER, trust.sign(b"acme/7", value)), key=b"acme/7")
    scene.letters = AtTheDesk(MemoryDesk(scene.log, Trust(["another" + SECRET])).open)
    scene.desk.trust = trust
    form = {"command": "replay", "letter": "0/4"}
    async with scene.open():
        _, where = await post(scene, "/dead-letters/act", 303, form | {"csrf": await csrf(scene.url)})
        assert "would be refused again (not_trusted" in said(await get(scene.url + where))
        assert "/mend" not in await get(f"{scene.url}/dead-letters/0/4")
        assert "replayed as it is" in await get(f"{scene.url}/dead-letters/0/4/mend?show=personal", 400)
        mend = {"csrf": await csrf(scene.url), "event": event(7).decode(), "sure": "1"}
        text, _ = await post(scene, "/dead-letters/0/4/mend", 400, mend)
        assert "its MAC is over the very bytes" in said(text)
    scene.letters = AtTheDesk(scene.desk.open)
    async with scene.open():
        _, where = await post(scene, "/dead-letters/act", 303, form | {"csrf": await csrf(scene.url)})
        assert "banner good" in await get(scene.url + where)
    (record,) = scene.log.records(0)
    assert record.value == value
    assert (HEADER, trust.sign(b"acme/7", value)) in record.headers


async def test_by_the_api(scene: Scene) -> None:
    """The same as JSON."""
    async with scene.open():
        headers = {"X-CSRF-Token": await csrf(scene.url)}

        async def ask(path: str, status: int = 200, **body: Any) -> Any:
            text, _ = await post(scene, f"/api/dead-letters/{path}", status, headers=headers, json=body)
            return json.loads(text)

        done = await ask("0/0/replay", why="raised")
        line = {"subject": "0/0", "done": True, "detail": "written as orders.events/0/0"}
        assert done == {"command": "replay", "lines": [line], "left": 0}
        assert (
            "still be refused: invalid_data: $.data"
            in (await ask("0/2/mend", 400, event={"a": 1} | json.loads(event(2, line=7))))["detail"]
        )
        done = await ask("0/2/mend", event=json.loads(event(2)), why="typo")
        assert done["lines"] == [{"subject": "0/2", "done": True, "detail": "written as orders.events/0/1"}]
        assert "needs a reason" in (await ask("0/3/dismiss", 400))["detail"]
        assert (await ask("0/3/dismiss", why=" old "))["lines"][0]["done"]
        for path in ("0/77/replay", "7/0/replay"):
            (line,) = (await ask(path))["lines"]
            assert (line["done"], "there is no such letter" in line["detail"]) == (False, True)
        await ask("0/77/mend", 400, event=json.loads(event(2)))
        await ask("0/x/replay", 400)
        await ask("replay", 400)
        await ask("0/1/mend", 400)
    assert [each.why for each in markers(scene)] == ["raised", "typo", "old"]


async def test_who_may(scene: Scene) -> None:
    """No viewer, no page of another site, nobody without the user's token; and no form offers it to viewers."""
    mend = {"event": event(2).decode(), "sure": "1"}
    forms = (
        ("/dead-letters/act", {"command": "replay", "letter": "0/0"}),
        ("/dead-letters/act", {"command": "dismiss", "letter": "0/0", "why": "x"}),
        ("/dead-letters/act", {"command": "replay", "reason": "order_too_large"}),
        ("/dead-letters/0/2/mend", mend),
        ("/dead-letters/0/2/mend", mend | {"sure": ""}),
    )
    calls = ("0/0/replay", "0/0/dismiss", "0/2/mend", "replay?reason=order_too_large")
    body = {"event": json.loads(event(2))}
    async with scene.open(Viewer()):
        token = await csrf(scene.url)
        for path, form in forms:
            await post(scene, path, 403, form | {"csrf": token})
        for path in calls:
            json_body = body if "mend" in path else {"why": "x"}
            await post(scene, f"/api/dead-letters/{path}", 403, headers={"X-CSRF-Token": token}, json=json_body)
        await get(f"{scene.url}/dead-letters/0/2/mend?show=personal", 403)
        for path in ("/0/0", "/confirm?command=replay&letter=0/0", "/0/2/mend", "?reason=order_too_large"):
            text = await get(f"{scene.url}/dead-letters{path}")
            assert 'method="post"' not in text
            assert "all that match" not in text
            assert "to act takes the role operator" in text or path.startswith("?")
    async with scene.open():
        token = await csrf(scene.url)
        for path, form in forms:
            for wrong in ("", "0" * 64):
                await post(scene, path, 403, form | {"csrf": wrong})
            evil = {"Origin": "https://evil.example", **PAGE}
            await post(scene, path, 403, form | {"csrf": token}, headers=evil)
        for path in calls:
            await post(scene, f"/api/dead-letters/{path}", 403, json=body)
    assert (written(scene), markers(scene)) == ([], [])


async def test_nobody_can(scene: Scene) -> None:
    """It is said where it can be done."""
    scene.letters = NoLetters()
    async with scene.open():
        for path in ("/dead-letters/0/0", "/dead-letters/confirm?command=replay&letter=0/0"):
            assert "are dealt with by a console over Kafka" in await get(scene.url + path)
        headers = {"X-CSRF-Token": await csrf(scene.url)}
        for path in ("replay", "dismiss"):
            await post(scene, f"/api/dead-letters/0/0/{path}", 400, headers=headers, json={"why": "x"})
    line = (await NoLetters().replay([(0, 1)], by="", why="", progress=ActionProgress()))[0]
    assert (line.subject, line.done) == ("0/1", False)


async def test_kafka_refuses(scene: Scene) -> None:
    """What was written before it did counts as done; the rest is named with why not."""

    desk = AtTheDesk(FencedAfterOne(scene.log).open)
    for number in range(60):
        scene.refuse(event(100 + number), "$: …", "unknown", key=b"k")
    places = [(0, 4 + number) for number in range(60)]
    lines = await desk.replay(places, by="ana", why="", progress=ActionProgress())
    assert [line.done for line in lines] == [True] * 50 + [False] * 10
    assert "somebody else replays" in lines[-1].detail
    lines = await AtTheDesk(scene.desk.open).replay(places, by="ana", why="", progress=ActionProgress())
    assert [line.done for line in lines] == [False] * 50 + [True] * 10
    assert len(written(scene)) == 60


async def test_stopped_between_two_transactions(scene: Scene) -> None:
    """What is committed is done; nothing else is written, and each of the rest says why not. The next action has its
    turn, and takes up the rest.
    """
    for number in range(130):
        scene.refuse(event(100 + number), "$: …", "unknown", key=b"k")
    places = [(0, 4 + number) for number in range(130)]
    desk, progress = AtTheDesk(scene.desk.open), ActionProgress()

    def stop() -> None:
        progress.is_stopped = True

    progress.told = stop
    lines = await desk.replay([*places, (0, 999)], by="ana", why="", progress=progress)
    assert [line.detail == STOPPED for line in lines] == [False] * 50 + [True] * 81
    assert (len(written(scene)), progress.done) == (50, 50)
    lines = await desk.replay(places, by="ana", why="", progress=progress)
    assert {line.detail for line in lines} == {STOPPED}
    lines = await desk.replay(places, by="ana", why="", progress=ActionProgress())
    assert [line.done for line in lines] == [False] * 50 + [True] * 80
    assert len(written(scene)) == 130


async def test_description(scene: Scene) -> None:
    """Of each call: that it is for operators, and its body."""
    async with scene.open():
        paths = (await get_json(f"{scene.url}/api/openapi.json"))["paths"]
    for path, body in (
        ("{partition}/{offset}/replay", "ActionAsked"),
        ("{partition}/{offset}/dismiss", "ActionAsked"),
        ("{partition}/{offset}/mend", "MendAsked"),
        ("replay", "ActionAsked"),
    ):
        asked = paths[f"/api/dead-letters/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert asked == {"$ref": f"#/components/schemas/{body}"}
