"""Actions of many: how far they are, who may see and stop them, and what becomes of them when nobody looks."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from schemas.console import ActionDone, ActionLine
from tests.unit.web.console.scene import NOW_MS, Scene, csrf, get, get_json, parked, until
from worker.errors import UsageError
from worker.web.console import actions as kept
from worker.web.console.actions import Actions
from worker.web.console.auth import User
from worker.web.console.operator import STOPPED, ActionProgress

ANA, BEN, CEM = User("ana", "operator"), User("ben", "viewer"), User("cem", "operator")
DONE, LEFT = ActionLine("acme/1", True, "released"), ActionLine("acme/2", False, STOPPED)


class AskedAs:
    """Whoever asks is the one that the request names."""

    async def who(self, request: Any) -> User:
        """By a header; ana."""
        return {"ben": BEN, "cem": CEM}.get(request.headers.get("X-Is", ""), ANA)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Five parked orders, and nobody acts on one before the test says so."""
    found = Scene(tmp_path)
    for number in range(5):
        found.put(f"acme/B{number}", parked(at_ms=NOW_MS - 5_000 + number))
    found.deeds.turns = asyncio.Semaphore(0)
    return found


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an action that takes longer than a moment."""
    monkeypatch.setattr("worker.web.console.server._SHORT_S", 0.05)


def go_on(scene: Scene, count: int) -> None:
    """So many orders get their turn."""
    assert scene.deeds.turns is not None
    for _ in range(count):
        scene.deeds.turns.release()


async def post(scene: Scene, path: str, status: int, data: Any = None, **headers: str) -> tuple[Any, str]:
    """What is answered, and where it leads."""
    async with (
        aiohttp.ClientSession(headers={"Accept": "text/html"} | headers) as session,
        session.post(scene.url + path, data=data, allow_redirects=False) as response,
    ):
        text = await response.text()
        assert response.status == status, text
        return (await response.json() if "json" in response.content_type else text), response.headers.get(
            "Location", ""
        )


async def release_all(scene: Scene) -> str:
    """Begins to release all that are parked; the address of the page that shows how it goes."""
    form = {"csrf": await csrf(scene.url), "command": "release", "filter": "status=parked"}
    return (await post(scene, "/act", 303, form))[1]


def said(text: str, where: str) -> str:
    """What is to be read in an element of a page, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text[text.index(f'id="{where}"') :].partition(">")[2]))


async def test_how_far_it_is(scene: Scene) -> None:
    """The page comes while it goes on, says how far it is, how many were refused and why, and in the end all of it."""
    scene.deeds.refuses = {"acme/B1"}
    async with scene.open() as answers:
        where = scene.url + await release_all(scene)
        text = await get(where)
        assert "It goes on: 0 of 5: 0 done, 0 not." in said(text, "action")
        assert 'value="0"' in text
        assert '<noscript><meta http-equiv="refresh"' in text
        assert "It goes on when you leave this page" in said(text, "stop")
        version = answers.actions.version
        go_on(scene, 3)
        await until(lambda: len(answers.actions.running()) == 1 and answers.actions.running()[0].done == 2)
        assert answers.actions.version > version
        text = await get(where)
        assert "It goes on: 3 of 5: 2 done, 1 not." in said(text, "action")
        assert ("acme/B1" in said(text, "action"), "acme/B0" in said(text, "action")) == (True, False)
        assert "Release of many by local goes on: 3 of 5." in said(await get(scene.url), "state")
        go_on(scene, 2)
        await until(lambda: not answers.actions.running())
        text = await get(where)
        assert "Release: 4 done, 1 not." in said(text, "action")
        assert "orders?status=parked" in text
        for sign in ("http-equiv", 'name="csrf"', "data-running"):
            assert sign not in text
        assert "goes on" not in await get(scene.url)


async def test_short_ones_are_over(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their page is shown when they have ended."""
    monkeypatch.setattr("worker.web.console.server._SHORT_S", 10.0)
    scene.deeds.turns = None
    async with scene.open():
        assert "Release: 5 done, 0 not." in said(await get(scene.url + await release_all(scene)), "action")


async def test_stopped(scene: Scene) -> None:
    """What is under way ends, the rest is not tried, and each says which; it can be asked for any time."""
    async with scene.open() as answers:
        where = await release_all(scene)
        go_on(scene, 2)
        await until(lambda: answers.actions.running()[0].done == 2)
        form = {"csrf": await csrf(scene.url)}
        await post(scene, f"{where}/stop", 403, {"csrf": "0" * 64})
        assert not answers.actions.running()[0].is_stopped
        assert (await post(scene, f"{where}/stop", 303, form))[1] == where
        text = await get(scene.url + where)
        assert "It is being stopped: 2 of 5" in said(text, "action")
        assert "/stop" not in text
        go_on(scene, 3)
        await until(lambda: not answers.actions.running())
        text = said(await get(scene.url + where), "action")
        assert "2 done, 3 not: it was stopped." in text
        assert text.count(STOPPED) == 3
        await post(scene, f"{where}/stop", 303, form)
        assert "2 done, 3 not: it was stopped." in said(await get(scene.url + where), "action")


async def test_goes_on_without_anybody(scene: Scene) -> None:
    """Whoever asked may leave, before he is answered, too."""
    async with scene.open() as answers:
        headers = {"X-CSRF-Token": await csrf(scene.url)}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(0.2)) as session:
            with pytest.raises(TimeoutError):
                await session.post(f"{scene.url}/api/release?status=parked")
        assert answers.actions.running()[0].total == 5
        go_on(scene, 5)
        await until(lambda: not answers.actions.running())
        (found,) = (await get_json(f"{scene.url}/api/actions"))["actions"]
    assert (found["state"], found["done"], found["lines"]) == ("done", 5, [])


async def test_restarted(scene: Scene) -> None:
    """The action ends where it is; its page says that nothing is kept, and what that means. What is left still matches."""
    async with scene.open() as answers:
        where = await release_all(scene)
        action = answers.action(where.rpartition("/")[2], User("local", "operator"))
        go_on(scene, 1)
        await until(lambda: action.progress.done == 1)
    assert (action.state, action.progress.done) == ("failed", 1)
    async with scene.open():
        text = await get(scene.url + where, 404)
        assert "the console was started again" in text
        assert "what was done stays done" in text
        assert "5 orders" in re.sub(r"\s+", " ", await get(f"{scene.url}/confirm?command=release&status=parked"))


async def test_by_the_api(scene: Scene) -> None:
    """It is answered at once or at the end, as was asked; the lines, and to stop it, by its key."""
    async with scene.open() as answers:
        token = {"X-CSRF-Token": await csrf(scene.url), "Accept": "application/json"}
        begun, _ = await post(scene, "/api/release?status=parked&wait=0", 200, **token)
        assert (begun["state"], begun["total"], begun["done"], begun["lines"]) == ("running", 5, 0, [])
        assert (begun["by"], begun["began_ms"], begun["asked"]) == ("local", NOW_MS, "status=parked")
        go_on(scene, 1)
        await until(lambda: answers.actions.running()[0].done == 1)
        path = f"/api/actions/{begun['key']}"
        found = await get_json(scene.url + path)
        assert found["lines"] == [{"subject": "acme/B0", "done": True, "detail": "done"}]
        await post(scene, f"{path}/stop", 403)
        stopping, _ = await post(scene, f"{path}/stop", 200, **token)
        assert (stopping["state"], stopping["is_stopped"]) == ("running", True)
        go_on(scene, 9)
        await until(lambda: not answers.actions.running())
        found = await get_json(scene.url + path)
        assert (found["state"], found["done"], found["refused"], len(found["lines"])) == ("stopped", 1, 4, 5)
        ended, _ = await post(scene, "/api/resend?status=parked", 200, **token)
        assert (ended["state"], ended["done"], ended["left"]) == ("done", 5, 0)
        listed = (await get_json(f"{scene.url}/api/actions"))["actions"]
        assert [each["command"] for each in listed] == ["resend", "release"]
        await get_json(f"{scene.url}/api/actions/none", 404)
        await post(scene, "/api/actions/none/stop", 404, **token)


async def test_who_may(scene: Scene) -> None:
    """All operators see and stop each other's; viewers know that one goes on, and no more."""
    async with scene.open(AskedAs()) as answers:
        where = await release_all(scene)
        key = where.rpartition("/")[2]
        as_cem, as_ben = {"X-Is": "cem"}, {"X-Is": "ben"}
        assert "began" in await get(scene.url + where, headers=as_cem | {"Accept": "text/html"})
        await get(scene.url + where, 404, headers=as_ben)
        await get_json(f"{scene.url}/api/actions/{key}", 404, headers=as_ben)
        assert (await get_json(f"{scene.url}/api/actions", headers=as_ben))["actions"] == []
        text = await get(scene.url, headers=as_ben | {"Accept": "text/html"})
        assert "Release of many by ana goes on: 0 of 5." in said(text, "state")
        assert key not in text
        await post(scene, f"{where}/stop", 403, {"csrf": await csrf(scene.url, headers=as_ben)}, **as_ben)
        assert not answers.actions.running()[0].is_stopped
        await post(scene, f"{where}/stop", 303, {"csrf": await csrf(scene.url, headers=as_cem)}, **as_cem)
        assert answers.actions.running()[0].is_stopped


# --- what is kept ---


def waits(gate: asyncio.Event, *lines: ActionLine) -> Callable[[ActionProgress], Awaitable[list[ActionLine]]]:
    """An action that ends when the gate opens."""

    async def do(progress: ActionProgress) -> list[ActionLine]:
        progress.tell(*lines)
        await gate.wait()
        return list(lines)

    return do


async def test_bounded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, and says what to do."""
    monkeypatch.setattr(kept, "AT_ONCE_MAX", 2)
    found, gate = Actions(lambda: NOW_MS), asyncio.Event()
    for _ in range(2):
        found.start("release", ANA, waits(gate), total=0)
    with pytest.raises(UsageError, match="2 actions go on already; wait until one of them has ended, or stop one"):
        found.start("release", ANA, waits(gate), total=0)
    gate.set()
    await until(lambda: not found.running())
    await found.close()


@pytest.mark.parametrize(("most", "lines_max", "left"), [(2, 1_000, 2), (100, 5, 3)])
async def test_bounded_in_memory(monkeypatch: pytest.MonkeyPatch, most: int, lines_max: int, left: int) -> None:
    """The oldest that have ended are forgotten, by their number and by their lines; never one that goes on."""
    monkeypatch.setattr(kept, "KEPT_MAX", most)
    monkeypatch.setattr(kept, "LINES_MAX", lines_max)
    found, gate, opened = Actions(lambda: NOW_MS), asyncio.Event(), asyncio.Event()
    first = found.start("release", ANA, waits(gate, DONE, LEFT), total=2)
    opened.set()
    for _ in range(5):
        await found.ended(found.start("release", ANA, waits(opened, DONE, LEFT), total=2))
        found.keep(ActionDone("resend", [DONE]), ANA)
    assert found.find(first.key) is first
    assert len(found.views(ANA)) <= max(left, 3)
    gate.set()
    await found.ended(first)
    assert len(found.views(ANA)) <= left


async def test_a_defect() -> None:
    """Ends that action alone, and is said; what was done until then is known."""

    async def breaks(progress: ActionProgress) -> list[ActionLine]:
        progress.tell(DONE)
        raise RuntimeError("secret")

    found = Actions(lambda: NOW_MS)
    action = found.start("release", ANA, breaks, total=2)
    await found.ended(action)
    view = action.view()
    assert (view.state, view.detail, view.done) == ("failed", "a defect of the console; its log has more", 1)


async def test_stopped_too_late() -> None:
    """When nothing was left to be stopped, it is done."""
    found, gate = Actions(lambda: NOW_MS), asyncio.Event()
    action = found.start("release", ANA, waits(gate, DONE), total=1)
    found.stop(action)
    gate.set()
    await found.ended(action)
    assert action.state == "done"
