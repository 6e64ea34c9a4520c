"""The console in a real browser: what a person sees, and what comes of what he does."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.driver import Browser
from tests.browser.shops import eventful, quiet, troubled
from tests.browser.site import Site
from tests.unit.web.console.scene import owed, settled

ORDER = "/orders/hats%2FH-77"
VIEWS = {
    "overview": "/",
    "orders": "/orders",
    "order": ORDER,
    "dead-letters": "/dead-letters",
    "dead-letter": "/dead-letters/0/0",
    "mend": "/dead-letters/0/0/mend?show=personal",
    "confirm-letter": "/dead-letters/confirm?command=dismiss&letter=0/0",
    "try": "/try",
    "confirm": "/confirm?command=release&status=parked",
    "api": "/api",
    "problem": "/orders/acme%2Fnone",
}
SHOPS = {"quiet": quiet, "troubled": troubled}
LOOKS = ("light", "dark", "narrow")
ALL = "\ue009a\ue000"
"""The keys that mark all of a text, so that what is typed takes its place."""
EMPTY = ("overview", "orders", "dead-letters")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A console that is not open yet."""
    with Site(tmp_path) as found:
        yield found


@pytest.fixture(autouse=True)
def window(browser: Browser) -> Iterator[None]:
    """Each test finds the window as usual."""
    yield
    browser.scripts(allowed=True)
    browser.zone("")
    browser.scheme("light")
    browser.resize(1300, 900)
    browser.open("about:blank")
    browser.complaints()


def unexpected(complaints: list[str]) -> list[str]:
    """Without what a page that is not there must say."""
    return [each for each in complaints if "404 (Not Found)" not in each]


def show(browser: Browser, look: str) -> None:
    """The window as somebody may have it."""
    browser.scheme("dark" if look == "dark" else "light")
    browser.resize(*((390, 844) if look == "narrow" else (1300, 900)))


def too_wide(browser: Browser) -> list[str]:
    """What reaches beyond the window."""
    found: list[str] = browser.run(
        "const wide = document.documentElement.clientWidth;"
        "const scrolls = wide < 1000 ? '.scroll' : '#none';"
        "return [...document.querySelectorAll('body *')].filter((each) =>"
        " !each.closest(`${scrolls}, pre, .skip, thead`) && each.getBoundingClientRect().right > wide + 1)"
        ".map((each) => each.outerHTML.slice(0, 120))"
    )
    return found


@pytest.mark.parametrize("shop", SHOPS)
@pytest.mark.parametrize("look", LOOKS)
def test_views(browser: Browser, site: Site, shots: Path, shop: str, look: str) -> None:
    """Each view is whole: the browser complains of nothing, and nothing is wider than the window."""
    SHOPS[shop](site.scene)
    url = site.open()
    show(browser, look)
    for name, path in VIEWS.items():
        browser.open(url + path)
        browser.find("main h1")
        browser.shoot(shots / f"{name}-{shop}-{look}.png")
        assert too_wide(browser) == [], name
        assert unexpected(browser.complaints()) == [], name


@pytest.mark.parametrize("look", LOOKS)
def test_story(browser: Browser, site: Site, shots: Path, look: str) -> None:
    """All that can happen to an order, in the order of time; traces are links."""
    eventful(site.scene)
    url = site.open()
    show(browser, look)
    browser.open(f"{url}/orders/acme%2FA14-4711")
    browser.find("#story")
    story = re.sub(r"\s+", " ", browser.text("section[aria-labelledby=story]"))
    said = (
        "order.confirmed",
        "nobody knows",
        "took over",
        "HTTP 422",
        "because: the shopper",
        "ana: release",
        "HTTP 204",
    )
    assert sorted(said, key=story.find) == list(said)
    assert browser.count("section[aria-labelledby=story] a[href^='https://traces.example/trace/0af7']") == 2
    browser.shoot(shots / f"story-{look}.png")
    assert too_wide(browser) == []
    assert unexpected(browser.complaints()) == []


def test_empty(browser: Browser, site: Site, shots: Path) -> None:
    """Where there is nothing, a view says so, and what to do."""
    url = site.open()
    for name in EMPTY:
        browser.open(url + VIEWS[name])
        browser.find("main .empty")
        browser.shoot(shots / f"{name}-empty-light.png")


def test_names_for_everything(browser: Browser, site: Site) -> None:
    """Whoever does not see the page is told the name of each field and button, and finds one heading and one main."""
    troubled(site.scene)
    url = site.open()
    for name, path in VIEWS.items():
        browser.open(url + path)
        browser.find("main h1")
        nameless = browser.run(
            "return [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a')].filter((e) =>"
            " !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.innerText.trim()).map((e) => e.outerHTML)"
        )
        assert nameless == [], name
        assert browser.run(
            "return [document.querySelectorAll('main').length, document.querySelectorAll('h1').length]"
        ) == [1, 1]
        assert browser.run("return document.documentElement.lang") == "en"
        assert browser.run("return [...document.querySelectorAll('th')].filter((e) => !e.scope).length") == 0, name


def test_contrast(browser: Browser, site: Site) -> None:
    """Text stands out from what is behind it by 4.5 to 1 (WCAG 2.1 AA), light and dark."""
    troubled(site.scene)
    url = site.open()
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        for path in ("/", "/orders", ORDER, "/dead-letters/0/0", VIEWS["mend"], "/try"):
            browser.open(url + path)
            browser.find("main h1")
            assert browser.run(CONTRAST) == [], (scheme, path)


CONTRAST = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b; };
const behind = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return numbers(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3); };
const low = [];
for (const e of document.querySelectorAll('body *')) {
  if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
  const a = light(numbers(getComputedStyle(e).color).slice(0, 3)), b = light(behind(e));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) low.push(ratio.toFixed(2) + ' ' + e.outerHTML.slice(0, 120));
}
return low;
"""


def test_release(browser: Browser, site: Site) -> None:
    """From the overview to what needs a person, to the order, and a button: done, by whom, and why."""
    troubled(site.scene)
    url = site.open()
    browser.open(url)
    browser.click("a[href*='status=parked']")
    browser.find("table.orders")
    assert "B20-5" in browser.text()
    browser.click("a[href$='acme%2FB20-5']")
    browser.type("input[name=why]", "price corrected")
    browser.click("button[value=release]")
    browser.find(".banner.good")
    assert "Release: done" in re.sub(r"\s+", " ", browser.text(".banner.good"))
    assert site.scene.deeds.done == [("release", ("acme/B20-5",), "local", "price corrected")]


def test_nothing_is_done_by_accident(browser: Browser, site: Site) -> None:
    """Enter in the reason does nothing; what cannot be undone is asked for once more, with a reason."""
    troubled(site.scene)
    browser.open(site.open() + "/orders/acme%2FB21")
    browser.type("input[name=why]", "ticket 4711")
    browser.press("Enter")
    browser.click("a[href*='command=forget']")
    browser.until(lambda: "Forget acme/B21?" in browser.text("h1"), "the question")
    browser.click("form.act button")
    assert browser.run("return document.querySelector('input[name=why]').validity.valueMissing")
    assert site.scene.deeds.done == []
    browser.type("input[name=why]", "erasure request")
    browser.click("form.act button")
    browser.find(".banner.good")
    assert site.scene.deeds.done == [("forget", ("acme/B21",), "local", "erasure request")]


def test_pause(browser: Browser, site: Site) -> None:
    """From the overview: what it means is said before."""
    quiet(site.scene)
    browser.open(site.open())
    browser.click("a[href*='command=pause'][href$='subject=hats']")
    browser.until(lambda: "Pause hats?" in browser.text("h1"), "the question")
    assert "by any worker" in browser.text()
    browser.click("form.act button")
    browser.find(".banner.good")
    assert site.scene.deeds.done == [("pause", ("hats",), "local", "")]


def test_release_all(browser: Browser, site: Site) -> None:
    """It is said how many before, and what became of each after."""
    troubled(site.scene)
    site.scene.deeds.refuses = {"acme/B20-1"}
    browser.open(site.open() + "/orders?account=acme&reason=unit_price")
    browser.click("a[href*='command=release']")
    browser.find("form.act")
    assert "Release 6 orders?" in browser.text("h1")
    browser.click("form.act button")
    browser.find(".banner.bad")
    assert "5 done, 1 not." in re.sub(r"\s+", " ", browser.text(".banner.bad"))
    ((command, subjects, _, _),) = site.scene.deeds.done
    assert (command, len(subjects)) == ("release", 6)


def goes_on(site: Site, count: int) -> None:
    """So many orders of an action get their turn."""

    async def release() -> None:
        assert site.scene.deeds.turns is not None
        for _ in range(count):
            site.scene.deeds.turns.release()

    site.do(release())


def begin(browser: Browser, site: Site) -> str:
    """Releases six orders, of which none has its turn yet; the console's address."""
    troubled(site.scene)
    site.scene.deeds.turns = asyncio.Semaphore(0)
    site.scene.deeds.refuses = {"acme/B20-4"}
    url = site.open()
    browser.open(url + "/orders?account=acme&reason=unit_price")
    browser.click("a[href*='command=release']")
    browser.click("form.act button")
    reads(browser, "#action", "It goes on: 0 of 6: 0 done, 0 not.")
    return url


def reads(browser: Browser, css: str, text: str) -> None:
    """Until it is to be read there, in one line."""
    browser.until(lambda: text in re.sub(r"\s+", " ", browser.text(css)), text)


@pytest.mark.parametrize("look", LOOKS)
def test_how_far_it_is(browser: Browser, site: Site, shots: Path, look: str) -> None:
    """The page counts by itself, without a reload, says who was refused, and what came of each in the end."""
    show(browser, look)
    begin(browser, site)
    browser.run("window.kept = true")
    goes_on(site, 3)
    reads(browser, "#action", "It goes on: 3 of 6: 2 done, 1 not.")
    assert browser.run("return document.querySelector('#action progress').value") == 3
    assert "acme/B20-4" in browser.text("#action")
    browser.shoot(shots / f"action-{look}.png")
    assert too_wide(browser) == []
    goes_on(site, 3)
    reads(browser, ".banner.bad", "Release: 5 done, 1 not.")
    assert browser.count("form.act") == 0
    assert browser.run("return window.kept")
    assert unexpected(browser.complaints()) == []


def test_stop(browser: Browser, site: Site) -> None:
    """One click, whatever is shown meanwhile: the rest is not tried, and the page says of which."""
    begin(browser, site)
    goes_on(site, 2)
    reads(browser, "#action", "2 of 6")
    browser.click("#stop button")
    reads(browser, "#action", "It is being stopped")
    goes_on(site, 4)
    reads(browser, ".banner.bad", "1 done, 5 not: it was stopped.")
    assert browser.text("#action").count("not tried: it was stopped") == 4


def test_nobody_looks(browser: Browser, site: Site) -> None:
    """The page is left, and the action goes on; every other page says so, and leads back to it."""
    url = begin(browser, site)
    browser.open(f"{url}/try")
    reads(browser, "#state", "Release of many by local goes on: 0 of 6.")
    goes_on(site, 3)
    browser.open(url)
    reads(browser, "#state", "3 of 6")
    goes_on(site, 2)
    reads(browser, "#state", "5 of 6")
    browser.click("#state a")
    goes_on(site, 1)
    reads(browser, ".banner.bad", "Release: 5 done, 1 not.")
    browser.open(url)
    browser.find("#overview")
    assert "goes on" not in browser.text("#state")


def test_action_without_scripts(browser: Browser, site: Site) -> None:
    """The page is loaded again by itself, until it has ended; it is stopped all the same."""
    browser.scripts(allowed=False)
    begin(browser, site)
    goes_on(site, 3)
    reads(browser, "#action", "3 of 6")
    browser.click("#stop button")
    reads(browser, "#action", "It is being stopped")
    goes_on(site, 3)
    reads(browser, ".banner.bad", "2 done, 4 not: it was stopped.")


def test_action_when_the_console_is_started_again(browser: Browser, site: Site) -> None:
    """It ends; its page says what that means, by itself."""
    begin(browser, site)
    assert "If the console is restarted meanwhile" in browser.text("#stop")
    browser.until(lambda: browser.run("return !document.getElementById('live').hidden"), "the stream of changes")
    site.restart()
    reads(browser, "main", "the console was started again")
    assert "what was done stays done" in browser.text()


def test_filters(browser: Browser, site: Site) -> None:
    """The form finds, its address can be kept, and the next page goes on."""
    troubled(site.scene)
    browser.open(site.open() + "/orders")
    browser.run("document.querySelector('select[name=status]').value = 'settled'")
    browser.type(".filters input[name=q]", "A14-")
    browser.click(".filters button")
    browser.until(lambda: "70 orders" in browser.text(), "70 orders")
    assert "status=settled" in browser.url
    first = browser.text("table.orders tbody th")
    browser.click("a[rel=next]")
    browser.until(lambda: browser.text("table.orders tbody th") not in ("", first), "the next page")
    assert browser.count("table.orders tbody tr") == 20
    assert browser.count("a[rel=next]") == 0


def test_changes_come_by_themselves(browser: Browser, site: Site) -> None:
    """In two tabs at once, without a reload, and what somebody is typing stays."""
    quiet(site.scene)
    url = site.open()
    first = browser.this_tab
    browser.open(url + "/orders?status=owed")
    browser.until(lambda: browser.run("return !document.getElementById('live').hidden"), "the stream of changes")
    second = browser.new_tab()
    browser.open(url + "/orders?q=new")
    browser.until(lambda: browser.run("return !document.getElementById('live').hidden"), "the stream of changes")
    browser.run("window.kept = true")
    browser.type(".filters input[name=reason]", "half a wor")
    site.change(lambda scene: scene.put("acme/new-1", owed(scene.now_ms)))
    browser.until(lambda: "acme/new-1" in browser.text("#orders"), "the new order")
    assert browser.run("return window.kept")
    assert browser.run("return document.querySelector('.filters input[name=reason]').value") == "half a wor"
    browser.tab(first)
    browser.until(lambda: "acme/new-1" in browser.text("#orders"), "the new order in the other tab")
    site.change(lambda scene: scene.put("acme/new-1", settled(event_ms=scene.now_ms)))
    browser.until(lambda: "acme/new-1" not in browser.text("#orders"), "that it is not owed any more")
    browser.tab(second)
    browser.close_tab(first)


def test_order_changes_before_ones_eyes(browser: Browser, site: Site) -> None:
    """The page of an order says at once that it is settled."""
    quiet(site.scene)
    browser.open(site.open() + ORDER)
    browser.find("h1 .status.owed")
    browser.until(lambda: browser.run("return !document.getElementById('live').hidden"), "the stream of changes")
    site.change(lambda scene: scene.put("hats/H-77", settled(revision=9, acked=9), 1))
    browser.find("h1 .status.settled")
    assert browser.count("tr.differs") == 0


def test_times(browser: Browser, site: Site) -> None:
    """Are those of the reader's zone; UTC is on hover."""
    quiet(site.scene)
    url = site.open()
    shown = {}
    for zone in ("Asia/Tokyo", "America/New_York"):
        browser.zone(zone)
        browser.open(url + ORDER)
        browser.find("time")
        shown[zone] = browser.run("const t = document.querySelector('time'); return [t.innerText, t.title]")
    assert shown["Asia/Tokyo"][0] != shown["America/New_York"][0]
    assert shown["Asia/Tokyo"][1] == shown["America/New_York"][1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown["Asia/Tokyo"][1])


def test_keyboard(browser: Browser, site: Site) -> None:
    """One finds, walks down a list and opens an order without a mouse."""
    troubled(site.scene)
    url = site.open()
    browser.open(url)
    browser.find("main h1")
    browser.press("/")
    browser.press(*"B21", "Enter")
    browser.until(lambda: browser.url.endswith("/orders/acme%2FB21"), "the order")
    browser.press("g")
    browser.press("o")
    browser.until(lambda: browser.url.endswith("/orders"), "the list")
    browser.find("table.orders")
    browser.press("j", "j")
    chosen = browser.text("tr.chosen th")
    browser.press("Enter")
    browser.until(lambda: chosen in browser.text("h1"), f"the order {chosen}")
    browser.open(url)
    browser.press("Tab", "Enter")
    assert browser.run("return document.activeElement.id") == "main"


def test_without_scripts(browser: Browser, site: Site) -> None:
    """Everything is read, found and done all the same; times are UTC."""
    troubled(site.scene)
    url = site.open()
    browser.scripts(allowed=False)
    browser.open(url + "/orders?status=parked")
    browser.find("table.orders")
    browser.type(".search input", "B21")
    browser.click(".search button")
    browser.find("form.act")
    assert browser.url.endswith("/orders/acme%2FB21")
    browser.click("button[value=resend]")
    browser.find(".banner.good")
    assert [done[0] for done in site.scene.deeds.done] == ["resend"]
    browser.open(url + "/dead-letters")
    browser.click("table.list a[href='/dead-letters/0/0']")
    browser.find("pre mark")
    browser.click("a[href='?show=personal']")
    browser.find("a[href='?']")


@pytest.mark.parametrize("with_scripts", [True, False])
def test_dead_letters(browser: Browser, site: Site, with_scripts: bool) -> None:
    """Mended: first wrong again, then right, then once more for sure; dismissed with a reason; all that match replayed."""
    wrong = (
        '{"specversion":"1.0","id":"e1","source":"/shops/acme","type":"order.cancelled",'
        '"time":"2026-11-01T10:00:00Z","subject":"acme/1","data":{"lines":7}}'
    )
    right = wrong.replace('"lines":7', "")
    site.scene.refuse(wrong.encode(), "$.data: expected no member lines", key=b"acme/1")
    site.scene.refuse(b"{", "$: expected JSON", "not_json")
    for number in (2, 3):
        event = right.replace("acme/1", f"acme/{number}").replace("e1", f"e{number}")
        site.scene.refuse(event.encode(), "$: too large", "order_too_large", key=f"acme/{number}".encode())
    url = site.open()
    browser.scripts(allowed=with_scripts)
    browser.open(url + "/dead-letters/0/0")
    browser.click("a[href$='/mend']")
    browser.click("a[href$='show=personal']")
    for text in (wrong.replace("7", "8"), right):
        assert browser.count("input[name=sure]") == 0
        browser.type("textarea", ALL + text)
        browser.click("main form button")
        if text != right:
            browser.find("pre mark")
            assert "would still be refused" in browser.text(".banner.bad")
    browser.find("input[name=sure]")
    assert site.scene.log.records(0) == site.scene.log.records(1) == []
    browser.click("main form button")
    browser.find(".banner.good")
    browser.open(url + "/dead-letters/confirm?command=dismiss&letter=0/1")
    browser.click("form.act button")
    assert "Dismiss dead letter" in browser.text("h1")  # the browser wants a reason
    browser.type("input[name=why]", "a test")
    browser.click("form.act button")
    browser.find(".banner.good")
    browser.open(url + "/dead-letters?reason=order_too_large")
    browser.click("a[href*='command=replay']")
    assert "Replay 2 dead letters?" in browser.text("h1")
    browser.click("form.act button")
    browser.find(".banner.good")
    assert "2 done, 0 not" in browser.text(".banner")
    written = [each for partition in (0, 1) for each in site.scene.log.records(partition)]
    assert sorted(each.key or b"" for each in written) == [b"acme/1", b"acme/2", b"acme/3"]


def test_personal_fields(browser: Browser, site: Site) -> None:
    """Are hidden until they are asked for; the place that is wrong is marked."""
    troubled(site.scene)
    url = site.open()
    browser.open(url + "/dead-letters/0/0")
    browser.find("pre mark")
    assert "ana@example.org" not in browser.text()
    assert '"quantity": "•••"' in browser.text("pre mark")
    browser.click("a[href='?show=personal']")
    browser.until(lambda: "ana@example.org" in browser.text(), "what was hidden")
    assert '"quantity": "two"' in browser.text("pre mark")


def test_console_is_started_again(browser: Browser, site: Site, tmp_path: Path) -> None:
    """A page that was open goes on with the next process; a form of before asks to be sent once more."""
    quiet(site.scene)
    url = site.open()
    browser.open(url + ORDER)
    browser.until(lambda: browser.run("return !document.getElementById('live').hidden"), "the stream of changes")
    site.restart()
    browser.until(lambda: browser.run("return !document.getElementById('live').hidden"), "the stream of changes again")
    site.change(lambda scene: scene.put("hats/H-77", settled(revision=9, acked=9), 1))
    browser.find("h1 .status.settled")
    browser.run("document.querySelector('input[name=csrf]').value = '0'.repeat(64)")
    browser.click("button[value=resend]")
    browser.until(lambda: "go back, reload, and do it once more" in browser.text(), "what to do")
    assert site.scene.deeds.done == []
    browser.open(url + ORDER)
    browser.click("button[value=resend]")
    browser.find(".banner.good")


def test_try(browser: Browser, site: Site) -> None:
    """What is pasted is tried, and stays in the form."""
    browser.open(site.open() + "/try")
    browser.type("textarea", '{"type": "order.confirmed"}')
    browser.click("form[action='/try'] button")
    browser.until(lambda: "What would be sent" in browser.text(), "what would be sent")
    assert browser.run("return document.querySelector('textarea').value") == '{"type": "order.confirmed"}'
    assert site.scene.tried == ['{"type": "order.confirmed"}']
