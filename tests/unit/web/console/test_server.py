"""The port: who gets what, that what is shown is escaped, and that nobody acts who may not."""

import asyncio
import base64
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from schemas.console import WorkerLine
from schemas.state import Operated
from schemas.views import OrderView
from tests.unit.web.console.scene import NOW_MS, Scene, csrf, get, get_json, owed, parked, settled
from worker import __version__
from worker.ports import StateEntry
from worker.web.console.auth import Basic, User, write_user

EVIL = "<img src=x onerror=alert(1)>'\"&amp;"


def signed(name: str, password: str) -> dict[str, str]:
    """The headers of a user."""
    return {"Authorization": aiohttp.encode_basic_auth(name, password), "Accept": "text/html"}


class Viewer:
    """Whoever asks may look."""

    async def who(self, _request: object) -> User:
        """A viewer."""
        return User("ben", "viewer")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A broker with some orders."""
    found = Scene(tmp_path)
    found.put("acme/A14", settled())
    found.put("acme/A15", parked("422: not known"))
    found.put("hats/A14", owed(NOW_MS - 7_200_000))
    return found


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes it."""
        self.tags.append((tag, dict(attrs)))


PAGES = (
    "/",
    "/orders",
    "/orders/acme%2FA15",
    "/dead-letters",
    "/dead-letters/0/0",
    "/try",
    "/api",
    "/confirm?command=release&subject=acme/A15",
)


async def test_pages(scene: Scene) -> None:
    """Each page says what it is about, and under which policy it runs; none has anything inline, or from elsewhere."""
    scene.refuse(b'{"subject":"acme/A15"}', "$.id: expected a member")
    async with scene.open(), aiohttp.ClientSession(headers={"Accept": "text/html"}) as session:
        for path in PAGES:
            async with session.get(scene.url + path) as response:
                text = await response.text()
                assert response.status == 200, text
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["X-Frame-Options"] == "DENY"
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["Server"] == "cartsync"
            for tag, attributes in Elements(text).tags:
                assert tag != "style", path
                assert tag != "script" or attributes.get("src", "").startswith("/static/"), path  # type: ignore[union-attr]
                assert not [name for name in attributes if name.startswith("on") or name == "style"], path
                for name in ("src", "href", "action"):
                    assert not re.match(r"(https?:)?//|javascript:", attributes.get(name) or ""), path


async def test_static_files(scene: Scene) -> None:
    """Our own files are served, and nothing else of the disk."""
    async with scene.open():
        assert "prefers-color-scheme" in await get(f"{scene.url}/static/console.css")
        assert "EventSource" in await get(f"{scene.url}/static/console.js")
        assert "<svg" in await get(f"{scene.url}/static/icon.svg")
        for path in ("server.py", "..%2Fserver.py", "%2e%2e%2fpages%2fbase.html", "none.css", ".css"):
            await get(f"{scene.url}/static/{path}", 404)


async def test_everything_is_escaped(scene: Scene) -> None:
    """Whatever a shop, a provider or an address says: on no page does it become an element or an attribute."""
    subject = f"acme/{EVIL}"
    scene.put(subject, parked(f"422: {EVIL}", event_id=EVIL, trace=EVIL))
    scene.refuse(
        json.dumps({EVIL: EVIL, "subject": subject}).encode(),
        f"$: {EVIL}",
        EVIL,
        (EVIL, EVIL.encode()),
        key=EVIL.encode(),
    )
    scene.tell(subject, 1, status=EVIL, currency=EVIL)
    scene.deeds.says = [(WorkerLine(EVIL, False, EVIL), None)]
    whole, quoted = quote(subject, safe=""), quote(EVIL, safe="")
    async with scene.open():
        for path in (
            *("/", "/orders", f"/orders/{whole}", "/dead-letters", "/dead-letters/0/0?show=personal"),
            *(
                f"/orders?q={quoted}&reason={quoted}",
                f"/confirm?command=resend&q={quoted}",
                f"/dead-letters?reason={quoted}&subject={quoted}",
            ),
            f"/confirm?command=resume&subject={quoted}",
        ):
            text = await get(scene.url + path)
            assert ("img", {"src": "x", "onerror": "alert(1)"}) not in Elements(text).tags, path
            assert not [tag for tag, attributes in Elements(text).tags if "onerror" in attributes], path
            assert "onerror" in text or path == "/", path
        for path in (f"/orders/acme%2F{quoted}x", f"/orders?status={quoted}", f"/done/{quoted}", f"/{quoted}"):
            async with (
                aiohttp.ClientSession(headers={"Accept": "text/html"}) as session,
                session.get(scene.url + path) as response,
            ):
                assert response.status in (400, 404)
                assert "<img" not in await response.text()


async def test_what_turns_text_around(scene: Scene) -> None:
    """Characters that are not seen, or reverse what is read, are shown as such."""
    scene.put("acme/\u202e41A\u200b", settled())
    async with scene.open():
        text = await get(f"{scene.url}/orders")
    assert "\u202e" not in re.sub(r'href="[^"]*"', "", text)
    assert "\\u202e41A\\u200b" in text


async def test_any_reference(scene: Scene) -> None:
    """Each order is found under its address, whatever its reference holds."""
    subjects = ["acme/a/b", "acme/a%2Fb", "acme/ü ?#&+", 'acme/"\n', "acme/x/../y", "acme/release"]
    for subject in subjects:
        scene.put(subject, settled())
    async with scene.open():
        links = re.findall(r'href="(/orders/[^"?]+)"', await get(f"{scene.url}/orders"))
        for subject in subjects:
            address = f"/orders/{quote(subject, safe='')}"
            assert address in links
            found = await get_json(f"{scene.url}/api{address}") if ".." not in subject else None
            assert found is None or found["order"]["subject"] == subject


async def test_lists_and_pages(scene: Scene) -> None:
    """Filters of the address, and a link to the next page that goes on where this one ends."""
    for number in range(60):
        scene.put(f"acme/P{number:02}", settled(event_ms=NOW_MS - number))
    async with scene.open():
        text = await get(f"{scene.url}/orders?status=settled&q=P")
        assert "60 orders" in text
        following = re.search(r'href="(/orders\?[^"]*cursor=[^"]*)" rel="next"', text)
        assert following is not None
        rest = await get(scene.url + following[1].replace("&amp;", "&"))
        assert ">acme/P50</a>" in rest
        assert ">acme/P49</a>" not in rest
        assert 'rel="next"' not in rest
        assert "1 order<" in (await get(f"{scene.url}/orders?status=parked")).replace("\n", "")


async def test_empty(tmp_path: Path) -> None:
    """Where there is nothing yet, each page says what to do."""
    scene = Scene(tmp_path)
    async with scene.open():
        assert "every order is settled" in await get(f"{scene.url}/")
        assert "No orders yet" in await get(f"{scene.url}/orders")
        assert "No order matches" in await get(f"{scene.url}/orders?status=owed")
        assert "every event that came was understood" in await get(f"{scene.url}/dead-letters")
        assert "Nothing is known" not in await get(f"{scene.url}/try")


async def test_search(scene: Scene) -> None:
    """A reference that one order has leads there, others to the list."""
    async with scene.open():
        for text, where in (
            ("A15", "/orders/acme%2FA15"),
            ("hats/A14", "/orders/hats%2FA14"),
            ("A14", "/orders?q=A14"),
            ("A1", "/orders?q=A1"),
        ):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{scene.url}/search", params={"q": text}, allow_redirects=False) as response,
            ):
                assert (response.status, response.headers["Location"]) == (303, where)


async def test_order_as_its_owner_sees_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that serves it knows more than the state topic. That counts while both are about the same record: carts
    of one and a status of another would be a lie.
    """
    monkeypatch.setattr("worker.web.console.answers._FOLLOW_S", 0.0)
    async with scene.open() as answers:
        url = f"{scene.url}/api/orders/hats%2FA14"
        assert (await get_json(url))["source"] == "state topic"
        held = OrderView("hats/A14", "owed", "held for 9 s more", revision=2, partition=0)
        scene.deeds.views["hats/A14"] = held
        found = await get_json(url)
        assert (found["source"], found["order"]["reason"]) == ("http://w1", "held for 9 s more")
        for revision, acked in ((1, 0), (3, 0), (2, 2)):
            other = OrderView("hats/A14", "settled", "", revision=revision, acked=acked, partition=0)
            scene.deeds.views["hats/A14"] = other
            found = await get_json(url)
            assert (found["source"], found["order"]["status"]) == ("state topic", "owed")
        scene.put("hats/A14", settled())
        await scene.read(answers)
        found = await get_json(url)
        assert (found["source"], found["order"]["status"]) == ("http://w1", "settled")
        assert found["provider_has"] == "the newest state: it has acknowledged it"


TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


async def test_traces_are_links_where_it_is_known_where_to_look(scene: Scene) -> None:
    """Those of entries and that of the newest event; what is no trace id is text, whatever it is."""
    scene.trace_url = "https://traces.example/trace/{trace_id}?a=1&b=2"
    scene.put("acme/T", settled(trace=f"00-{TRACE_ID}-b7ad6b7169203331-01"))
    scene.put("acme/U", settled(trace=EVIL))
    scene.happen("acme/T", 1, trace=TRACE_ID)
    scene.happen("acme/T", 2, trace=EVIL)
    async with scene.open() as answers:
        await scene.read(answers)
        links = [
            [
                attrs["href"]
                for tag, attrs in Elements(page).tags
                if tag == "a" and "traces.example" in str(attrs["href"])
            ]
            for page in (await get(f"{scene.url}/orders/acme/T"), await get(f"{scene.url}/orders/acme/U"))
        ]
        assert links == [[f"https://traces.example/trace/{TRACE_ID}?a=1&b=2"] * 2, []]


async def test_times_in_notes(scene: Scene) -> None:
    """Are the reader's own like all others; what somebody wrote that only looks like a time stays as it is."""
    why = f"since 2026-02-30T00:00:00Z, {EVIL}"
    scene.put("acme/N", settled(operated=(Operated("note", "jane", why, NOW_MS, True, "noted", b"u"),)))
    async with scene.open() as answers:
        await scene.read(answers)
        page = await get(f"{scene.url}/orders/acme/N")
        assert '<p class="note"><time datetime="2027-01-15T08:00:00.000Z" title="2027-01-15 08:00:00 UTC">' in page
        assert "since 2026-02-30T00:00:00Z, &lt;img" in page


async def test_story(scene: Scene) -> None:
    """What happened to an order, in the order of the topic, from Kafka as it is now; why is in the record alone."""
    deed = Operated("release", "jane", "Ana called", NOW_MS + 51, True, "released", b"u")
    scene.put("acme/S", settled(operated=(deed,)), 1)
    scene.happen("acme/S", 1, 1)
    scene.happen("acme/S", 2, 1, kind="attempt", what="rejected", http_status=503, reason="503: <b>later</b>")
    scene.happen("acme/S", 50, 1, event_id="e50", offset=7, trace=TRACE_ID)
    scene.happen("acme/S", 2, 1, kind="attempt", what="applied", currency="EUR", shipped_minor=250, status="settled")
    scene.happen("acme/S", 51, 1, kind="operator", what="release", by="jane", reason="released")
    scene.happen("acme/other", 1, 1)
    scene.log.history(1).append(StateEntry(6, b"foreign", b""))
    async with scene.open() as answers:
        await scene.read(answers)
        found = await get_json(f"{scene.url}/api/orders/acme/S")
        assert [line["entry"]["n"] for line in found["story"]] == [50, 2, 51]
        assert found["story"][1]["words"] == "attempt: the provider took it"
        assert found["story"][2] == {
            "entry": found["story"][2]["entry"],
            "words": "jane: release; released",
            "why": "Ana called",
        }
        page = await get(f"{scene.url}/orders/acme/S")
        assert page.index("offset 7") < page.index("attempt: the provider took it") < page.index("because: Ana called")
        assert "Only the newest 50 entries" in page
        assert TRACE_ID in page
        assert "<b>later" not in page
        assert answers.site.index.damaged == 1
        scene.happen("acme/S", 52, 1)
        scene.log.history(1)[2] = StateEntry(2, b"", b"\xc1")  # who may write the topic may write anything
        await scene.read(answers)
        found = await get_json(f"{scene.url}/api/orders/acme/S")
        assert [line["entry"]["n"] for line in found["story"]] == [51, 52]


async def test_csv(scene: Scene) -> None:
    """All that match, one a line; what a spreadsheet would take for a formula is text."""
    for number, reference in enumerate(("=1+1", "@x", "-2", "+3", 'a"b,c\nd')):
        scene.put(f"{reference}/{number}", parked("=cmd|' /C calc'!A0"))
    async with scene.open():
        text = await get(f"{scene.url}/orders.csv?status=parked&sort=reference")
    assert all(line.startswith('"') for line in text.split("\r\n")[:-1])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 6
    for row in rows:
        for value in row.values():
            assert value[:1] not in "=+@|" or value == "", row
            assert not value.startswith("-"), row
    by_order = {row["order"]: row for row in rows}
    assert by_order["'=1+1/0"]["reason"].startswith("'=cmd")
    assert by_order["acme/A15"]["shipped_minor"] == "100"
    assert by_order['a"b,c\nd/4']["status"] == "parked"


async def post(scene: Scene, path: str, data: Any, status: int, **headers: str) -> tuple[str, str]:
    """What a form is answered: the text, and where it leads."""
    async with (
        aiohttp.ClientSession(headers={"Accept": "text/html", **headers}) as session,
        session.post(scene.url + path, data=data, allow_redirects=False) as response,
    ):
        text = await response.text()
        assert response.status == status, text
        return text, response.headers.get("Location", "")


async def test_act_on_one(scene: Scene) -> None:
    """A form releases an order, says who wanted it and why, and the order's page says what came of it."""
    async with scene.open():
        token = await csrf(scene.url)
        form = {"csrf": token, "command": "release", "subject": "acme/A15", "why": "mended"}
        _, where = await post(scene, "/act", form, 303)
        assert scene.deeds.done == [("release", ("acme/A15",), "local", "mended")]
        text = await get(scene.url + where)
        assert "Release:" in text
        assert "banner good" in text
        scene.deeds.refuses = {"acme/A15"}
        _, where = await post(scene, "/act", form, 303)
        assert "banner bad" in await get(scene.url + where)


async def test_what_needs_a_reason(scene: Scene) -> None:
    """Is not done without one."""
    async with scene.open():
        form = {"csrf": await csrf(scene.url), "command": "forget", "subject": "acme/A15"}
        text, _ = await post(scene, "/act", form, 400)
        assert "forget needs a reason" in text
        assert scene.deeds.done == []
        await post(scene, "/act", form | {"why": "erasure request"}, 303)
        assert scene.deeds.done == [("forget", ("acme/A15",), "local", "erasure request")]


async def test_act_on_all(scene: Scene) -> None:
    """First it is said how many; then those that match are done, and each is accounted for."""
    scene.put("acme/A16", parked())
    scene.deeds.refuses = {"acme/A16"}
    async with scene.open():
        text = await get(f"{scene.url}/confirm?command=release&status=parked")
        assert "Release 2 orders?" in re.sub(r"\s+", " ", text)
        fields = {
            attributes["name"]: attributes.get("value") or ""
            for tag, attributes in Elements(text).tags
            if tag == "input" and attributes.get("type") == "hidden"
        }
        assert fields["filter"] == "status=parked"
        _, where = await post(scene, "/act", fields, 303)
        assert scene.deeds.done == [("release", ("acme/A15", "acme/A16"), "local", "")]
        text = re.sub(r"\s+", " ", await get(scene.url + where))
        assert "1 done, 1 not" in text


async def test_too_many_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond one action is said to be left."""
    monkeypatch.setattr("worker.web.console.answers.ACT_MAX", 1)
    scene.put("acme/A16", parked())
    async with scene.open():
        headers = {"X-CSRF-Token": await csrf(scene.url)}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{scene.url}/api/release?status=parked", json={"why": "x"}) as response,
        ):
            done = await response.json()
    assert (len(done["lines"]), done["left"]) == (1, 1)


async def test_never_all_of_them(scene: Scene) -> None:
    """An action without a filter is not done, whoever forgets it."""
    async with scene.open():
        token = await csrf(scene.url)
        await get(f"{scene.url}/confirm?command=release", 400)
        await post(scene, "/act", {"csrf": token, "command": "release"}, 400)
        await post(scene, "/act", {"csrf": token, "command": "release", "filter": "sort=age"}, 400)
        await post(scene, "/act", {"csrf": token, "command": "erase", "subject": "acme/A15"}, 400)
        await post(scene, "/api/release", b"", 400, **{"X-CSRF-Token": token})
    assert scene.deeds.done == []


async def test_no_way_to_act(scene: Scene) -> None:
    """Where none is configured, pages say so instead of offering it, and nothing is done."""
    scene.deeds.problem = "no way to act is configured"
    async with scene.open():
        for path in ("/orders/acme%2FA15", "/orders?status=parked", "/confirm?command=release&status=parked"):
            text = await get(scene.url + path)
            assert "o way to act is configured" in text
            assert 'action="/act"' not in text
        token = await csrf(scene.url)
        await post(scene, "/act", {"csrf": token, "command": "release", "subject": "acme/A15"}, 400)
    assert scene.deeds.done == []


async def test_viewers_look(scene: Scene) -> None:
    """A viewer sees all but personal fields, may try, and cannot act, whatever he sends."""
    scene.refuse(b'{"x": "ana"}', "$.x: no")
    async with scene.open(Viewer()):
        token = await csrf(scene.url)
        assert "to act takes the role operator" in await get(f"{scene.url}/orders?status=parked")
        form = {"csrf": token, "command": "release", "subject": "acme/A15"}
        await post(scene, "/act", form, 403)
        await post(scene, "/api/orders/acme%2FA15/release", b"{}", 403, **{"X-CSRF-Token": token})
        await get(f"{scene.url}/dead-letters/0/0?show=personal", 403)
        await get_json(f"{scene.url}/api/dead-letters/0/0?show=personal", 403)
        assert "An operator can have it shown" in await get(f"{scene.url}/dead-letters/0/0")
        await post(scene, "/try", {"csrf": token, "events": "{}"}, 200)
    assert scene.deeds.done == []


@pytest.mark.parametrize("token", ["", "0" * 64, "ä"])
async def test_no_token(scene: Scene, token: str) -> None:
    """Without the user's token nothing is done: neither by a form nor by the API."""
    async with scene.open():
        form = {"csrf": token, "command": "release", "subject": "acme/A15"}
        text, _ = await post(scene, "/act", form, 403)
        assert "go back, reload, and do it once more" in text
        await post(scene, "/try", {"csrf": token, "events": "{}"}, 403)
        await post(
            scene, "/api/orders/acme%2FA15/release", b"", 403, **({"X-CSRF-Token": token} if token.isascii() else {})
        )
    assert (scene.deeds.done, scene.tried) == ([], [])


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ],
)
async def test_pages_of_other_sites(scene: Scene, headers: dict[str, str]) -> None:
    """Cannot act, even with a token."""
    async with scene.open():
        form = {"csrf": await csrf(scene.url), "command": "release", "subject": "acme/A15"}
        await post(scene, "/act", form, 403, **headers)
        await post(scene, "/api/orders/acme%2FA15/release", b"", 403, **headers, **{"X-CSRF-Token": form["csrf"]})
    assert scene.deeds.done == []


async def test_forms_alone(scene: Scene) -> None:
    """What a page of another site could send without leave, a text that looks like JSON, is not taken."""
    async with scene.open():
        body = json.dumps({"csrf": await csrf(scene.url), "command": "release", "subject": "acme/A15"})
        await post(scene, "/act", body.encode(), 415, **{"Content-Type": "text/plain"})
    assert scene.deeds.done == []


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("", 421), ("localhost", 200), ("Console.Shop:80", 200), ("10.0.0.9", 200)],
)
async def test_names(scene: Scene, host: str, status: int) -> None:
    """Under a name that is not ours nothing is answered: a page whose name was made to point here sees nothing."""
    async with scene.open(allowed_hosts=("console.shop",)):
        await get(f"{scene.url}/orders", status, headers={"Host": host, "Accept": "text/html"})
        await get(f"{scene.url}/livez", 200, headers={"Host": host})


async def test_basic(scene: Scene, tmp_path: Path) -> None:
    """Without credentials a browser asks for them, and nothing at all is shown before."""
    users = tmp_path / "users"
    write_user(users, "ana", "operator", "correct horse")
    async with scene.open(Basic(users), asks_for_password=True):
        for path in (*PAGES, "/static/console.css", "/events", "/api/orders", "/orders.csv"):
            async with aiohttp.ClientSession() as session, session.get(scene.url + path) as response:
                assert response.status == 401, path
                assert response.headers["WWW-Authenticate"].startswith("Basic ")
                assert "A15" not in await response.text()
        auth = signed("ana", "correct horse")
        assert "A15" in await get(f"{scene.url}/orders", headers=auth)
        token = await csrf(scene.url, headers=auth)
        await post(scene, "/act", {"csrf": token, "command": "resume", "subject": "acme"}, 303, **auth)
    assert scene.deeds.done == [("resume", ("acme",), "ana", "")]


async def test_before_sign_in(scene: Scene, tmp_path: Path) -> None:
    """Whoever has not signed in learns neither the version nor the pages, and nothing of Kafka's hosts."""
    users = tmp_path / "users"
    write_user(users, "ana", "operator", "correct horse")
    async with scene.open(Basic(users), asks_for_password=True) as answers:
        answers.site.follower.detail = "no answer from k1.internal:9092"
        text = await get(f"{scene.url}/", 401)
        for told in ("k1.internal", __version__, "Dead letters", "Overview"):
            assert told not in text
        assert "k1.internal" not in json.dumps(await get_json(f"{scene.url}/readyz", 503))
        assert "k1.internal" in await get(f"{scene.url}/", headers=signed("ana", "correct horse"))
        answers.site.follower.detail = "the index cannot be written: disk of k1.internal is full"
        assert (await get_json(f"{scene.url}/readyz", 503))["detail"] == "the index cannot be written"


async def test_what_is_counted(scene: Scene, tmp_path: Path) -> None:
    """Each view that somebody was let in to, each of those that were acted on, and whom nobody was let in for; neither
    files, nor streams, nor addresses that there are not.
    """
    scene.refuse(b'{"subject":"acme/A15"}', "$.id: expected a member")
    scene.deeds.refuses = {"acme/A14"}
    users = tmp_path / "users"
    write_user(users, "ana", "operator", "password of ana")
    async with scene.open(Basic(users)) as answers:
        ana = signed("ana", "password of ana")
        seen = (
            *("/", "/orders", "/orders.csv", "/orders/acme%2FA15", "/dead-letters", "/dead-letters/0/0", "/try"),
            *("/api", "/api/index", "/confirm?command=resend&subject=acme/A15", "/static/console.css", "/none"),
        )
        for path in seen:
            await get(scene.url + path, 404 if path == "/none" else 200, headers=ana)
        token = await csrf(scene.url, headers=ana)
        for subject in ("acme/A14", "acme/A15"):
            await post(scene, "/act", {"csrf": token, "command": "resend", "subject": subject}, 303, **ana)
        await get(scene.url, 401)
        await get(scene.url, 401, headers=signed("ana", "another password"))
        metrics = answers.site.metrics

        def count(view: str) -> float | None:
            return metrics.value("cartsync_console_request_seconds_count", view=view)

        views = ("overview", "orders", "order", "export", "dead_letters", "dead_letter", "actions", "try", "api")
        assert {view: count(view) for view in views} == dict.fromkeys(views, 1.0) | {"actions": 3.0, "api": 3.0}
        acted = [
            metrics.value("cartsync_console_actions_total", command="resend", result=r) for r in ("done", "refused")
        ]
        assert acted == [1.0, 1.0]
        failures = [
            metrics.value("cartsync_console_sign_in_failures_total", reason=reason) for reason in ("unnamed", "wrong")
        ]
        assert failures == [1.0, 1.0]


async def test_outcomes_are_of_who_asked(scene: Scene, tmp_path: Path) -> None:
    """Another user does not see what somebody's action has led to."""
    users = tmp_path / "users"
    for name in ("ana", "eva"):
        write_user(users, name, "operator", f"password of {name}")
    async with scene.open(Basic(users)):
        ana, eva = (signed(name, f"password of {name}") for name in ("ana", "eva"))
        form = {"csrf": await csrf(scene.url, headers=ana), "command": "resume", "subject": "acme"}
        _, where = await post(scene, "/act", form, 303, **ana)
        await get(scene.url + where, headers=ana)
        await get(scene.url + where, 404, headers=eva)
        form["csrf"] = await csrf(scene.url, headers=eva)
        await post(scene, "/act", form, 403, **ana)


async def test_slow_bodies(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not arrive is waited for only so long."""
    monkeypatch.setattr("worker.web.console.server.BODY_WITHIN_S", 0.05, raising=False)
    async with scene.open():
        host, port = scene.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /act HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n"
        writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\ncsrf".encode())
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_streams_that_nobody_reads(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for a list and does not read it is hung up on."""
    monkeypatch.setattr("worker.web.console.server.WRITE_WITHIN_S", 0.05, raising=False)
    ended = asyncio.Event()

    async def without_end(*_: object) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(2**20)
        finally:
            ended.set()

    async with scene.open() as answers:
        monkeypatch.setattr(answers, "export", without_end)
        host, port = scene.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /orders.csv HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await ended.wait()
        writer.close()


async def test_half_surrogates(scene: Scene) -> None:
    """What JSON may escape though no text may hold it neither fails a dead letter nor a scenario."""
    scene.refuse(b'{"\\ud800": "\\udfff", "n": 1e999}', "$: no")
    async with scene.open():
        for path in ("/dead-letters/0/0", "/dead-letters/0/0?show=personal"):
            await get(scene.url + path)
            await get_json(f"{scene.url}/api{path}")
        form = {"csrf": await csrf(scene.url), "events": '{"type": "\\ud800\u00e9"}', "as": "scenario"}
        saved, _ = await post(scene, "/try", form, 200)
        assert json.loads(saved)["steps"] == [{"event": {"type": "\ud800\u00e9"}}]


@pytest.mark.parametrize("cursor", ['["changed",99999999999999999999,1]', '["changed",1,99999999999999999999]'])
async def test_odd_cursors(scene: Scene, cursor: str) -> None:
    """A cursor with numbers that nothing in the index can have is refused."""
    async with scene.open():
        text = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
        assert "what an earlier page gave" in await get(f"{scene.url}/orders?cursor={text}", 400)


async def test_try(scene: Scene) -> None:
    """What is pasted is tried and shown again, escaped; or saved as a scenario."""
    event = '{"type": "order.confirmed", "subject": "acme/A14"}'
    async with scene.open():
        token = await csrf(scene.url)
        text, _ = await post(scene, "/try", {"csrf": token, "events": event + "</textarea><b>"}, 200)
        assert scene.tried == [event + "</textarea><b>"]
        assert "</textarea><b>" not in text
        assert "&#34;&lt;b&gt;&#34;: 1" in text
        saved, _ = await post(scene, "/try", {"csrf": token, "events": event, "as": "scenario"}, 200)
        assert json.loads(saved)["steps"] == [{"event": json.loads(event)}]
        await post(scene, "/try", {"csrf": token, "events": "{", "as": "scenario"}, 400)
        await post(scene, "/try", {"csrf": token, "events": "x" * 500_000}, 413)


async def test_changes_are_told(scene: Scene) -> None:
    """A page that listens hears at once how it stands, and then of each change."""
    async with (
        scene.open() as answers,
        aiohttp.ClientSession() as session,
        session.get(f"{scene.url}/events") as stream,
    ):
        assert stream.headers["Content-Type"] == "text/event-stream"

        async def heard() -> dict[str, Any]:
            assert await stream.content.readline() == b"event: change\n"
            found: dict[str, Any] = json.loads((await stream.content.readline()).removeprefix(b"data: "))
            assert await stream.content.readline() == b"\n"
            return found

        first = await heard()
        assert first["state"] == "following"
        scene.put("acme/new", settled())
        await scene.read(answers)
        async with asyncio.timeout(10):
            assert (await heard())["version"] > first["version"]


async def test_listeners_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number pages are told to reload by hand."""
    monkeypatch.setattr("worker.web.console.server._LIVE_MAX", 1)
    async with scene.open(), aiohttp.ClientSession() as session, session.get(f"{scene.url}/events") as stream:
        await stream.content.readline()
        await get(f"{scene.url}/events", 503)


async def test_probes(scene: Scene) -> None:
    """Ready while it follows the topics."""
    async with scene.open() as answers:
        assert await get_json(f"{scene.url}/livez") == {"ok": True, "detail": ""}
        assert await get_json(f"{scene.url}/readyz") == {"ok": True, "detail": ""}
        answers.site.follower.detail = "no Kafka broker answers"
        assert (await get_json(f"{scene.url}/readyz", 503))["detail"] == "Kafka cannot be read now"
        text = await get(f"{scene.url}/")
        assert "Nothing new is read: no Kafka broker answers. The" in text
        answers.site.follower.detail = "no answer from k1:9092, k2:9092..."
        assert "k2:9092. The console tries again" in await get(f"{scene.url}/")


async def test_kafka_fails_meanwhile(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detail that cannot be read says so and what to do; lists are shown from the index."""

    async def fail(*_: object) -> None:
        raise TimeoutError

    async with scene.open():
        monkeypatch.setattr(scene.records, "record", fail)
        assert "Kafka does not answer in time" in await get(f"{scene.url}/orders/acme%2FA15", 503)
        assert "A15" in await get(f"{scene.url}/orders")


async def test_defects_tell_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a defect of ours its message is in the log alone."""

    async def fail(*_: object) -> None:
        raise RuntimeError("secret")

    async with scene.open():
        monkeypatch.setattr(scene.records, "record", fail)
        assert "secret" not in await get(f"{scene.url}/orders/acme%2FA15", 500)


async def test_record_has_moved(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that compaction has taken is looked for again; when it stays away, one is told to reload."""
    monkeypatch.setattr("worker.web.console.answers._FOLLOW_S", 0.0)

    async def gone(*_: object) -> None:
        return None

    async with scene.open():
        monkeypatch.setattr(scene.records, "record", gone)
        assert "reload in a moment" in await get(f"{scene.url}/orders/acme%2FA15", 503)


async def test_unknown(scene: Scene) -> None:
    """What there is not is said not to be there, as a page and as problem details."""
    async with scene.open():
        assert "no order acme/none in the state topic" in await get(f"{scene.url}/orders/acme%2Fnone", 404)
        found = await get_json(f"{scene.url}/api/orders/acme%2Fnone", 404)
        assert found == {
            "title": "Not Found",
            "status": 404,
            "detail": "no order acme/none in the state topic, as far as it was read",
        }
        await get(f"{scene.url}/dead-letters/0/99", 404)
        await get(f"{scene.url}/dead-letters/0/x", 400)
        await get(f"{scene.url}/nowhere", 404)
        await get_json(f"{scene.url}/api/nowhere", 404)


async def test_slow_headers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish its header is hung up on."""
    monkeypatch.setattr("worker.web.console.server.HEADER_WITHIN_S", 0.05)
    async with scene.open():
        host, port = scene.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        async with asyncio.timeout(10):
            with pytest.raises((ConnectionError, AssertionError)):
                assert await reader.read()
        writer.close()
