"""`cartsync demo`: the promise of the README, with the embedded log and on a real Kafka of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import PROJECT

Ran = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """Run the command line in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARTSYNC_")}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "worker", *words],
            capture_output=True,
            text=True,
            timeout=90,
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(PROJECT)},
            check=False,
        )

    return run


def row(text: str, head: str) -> list[int]:
    """Return the numbers of a row of the table at the end."""
    found = re.search(rf"│ {re.escape(head)} +│(.*)│", text)
    assert found is not None, text
    return [int(cell) for cell in found[1].split("│")]


def check(ran: Ran, *options: str) -> None:
    """Exit code 0 once all orders agree at all three providers; `order show` then looks at what it left."""
    demo = ran("demo", "--orders", "60", "--seconds", "2", *options)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    said = demo.stdout
    assert row(said, "orders") == [21, 20, 20]
    agreeing, unsupported = row(said, "agree"), row(said, "cannot be sent (parked)")
    assert (agreeing[:2], agreeing[2] + unsupported[2], unsupported[2] > 0) == ([21, 20], 20, True), said
    assert row(said, "differ") == [0, 0, 0]
    assert all(count > 0 for what in ("faults met", "pushes", "doubled") for count in row(said, what)), said
    shown = ran("order", "show", "acme/grown", "--url", "http://127.0.0.1:1")
    assert (shown.returncode, "settled" in shown.stdout) == (0, True), shown.stdout + shown.stderr


def test_the_demo_ends_in_agreement(ran: Ran) -> None:
    """Without a broker."""
    check(ran)


def test_the_demo_ends_in_agreement_on_kafka(ran: Ran, kafka_jars: Path, tmp_path: Path) -> None:
    """With one."""
    (tmp_path / ".kafka").mkdir()
    (tmp_path / ".kafka" / "libs").symlink_to(kafka_jars.absolute())
    check(ran, "--kafka")


@pytest.mark.parametrize(
    "options", [pytest.param((), id="embedded"), pytest.param(("--kafka",), id="kafka", marks=pytest.mark.slow)]
)
def test_the_demo_in_a_browser(tmp_path: Path, kafka_jars: Path, options: tuple[str, ...]) -> None:
    """Its address is printed; it shows the demo's orders while it runs and after it, acts, and ends with Ctrl-C."""
    if options:
        (tmp_path / ".kafka").mkdir()
        (tmp_path / ".kafka" / "libs").symlink_to(kafka_jars.absolute())
    words = ("demo", "--orders", "30", "--seconds", "2", "--console", "--console-port", "0", *options)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for text in process.stdout:
            said.append(text)
            if "it stays open until Ctrl-C" in text:
                break
        whole = "".join(said)
        found = re.search(r"console: (http://127\.0\.0\.1:\d+)\n", whole)
        assert found is not None, whole
        overview = asked(found[1], "/api/overview")
        assert {line["name"]: line["provider"] for line in overview["accounts"]} == {
            "acme": "sequra",
            "hats": "qliro",
            "escrow": "atarapay",
        }
        assert sum(line["orders"] for line in overview["accounts"]) == 31
        order = asked(found[1], "/api/orders/acme%2Fgrown")
        assert order["order"]["status"] == "settled"
        assert order["history"]
        token = asked(found[1], "/api/session")["csrf"]
        done = asked(found[1], "/api/orders/acme%2Fgrown/resend", b"{}", {"X-CSRF-Token": token})
        assert [line["done"] for line in done["lines"]] == [True]
        why = json.dumps({"why": "a test"}).encode()
        (line,) = asked(found[1], "/api/dead-letters/0/99999/dismiss", why, {"X-CSRF-Token": token})["lines"]
        assert (line["done"], line["detail"].startswith("there is no such letter")) == (False, True)
        settle_a_parked_order(found[1], token)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, "".join(said)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def settle_a_parked_order(url: str, token: str) -> None:
    """The README's five minutes: it is found under what needs a person, a release does not help, an adoption does."""
    needs = [line["text"] for line in asked(url, "/api/overview")["needs_person"]]
    assert any("parked: unsupported: " in said for said in needs), needs
    (order, *_) = asked(url, "/api/orders?status=parked&account=escrow")["orders"]
    subject = order["subject"]
    assert "AtaraPay cannot express a partial return" in order["reason"]
    place = "/api/orders/" + subject.replace("/", "%2F")
    because = json.dumps({"why": "19.90 NGN paid back by hand"}).encode()
    for command, status in (("release", "parked"), ("adopt", "settled")):
        done = asked(url, f"{place}/{command}", because, {"X-CSRF-Token": token})
        assert [line["done"] for line in done["lines"]] == [True], done
        until_it_is(url, place, status)
    with urllib.request.urlopen(url + place.removeprefix("/api"), timeout=30) as response:
        page = response.read().decode()
    assert "adopt (19.90 NGN paid back by hand)" in page, page


def until_it_is(url: str, place: str, status: str) -> None:
    """The console's index has followed."""
    give_up_at = time.monotonic() + 20
    while (found := asked(url, place)["order"])["status"] != status:
        assert time.monotonic() < give_up_at, found
        time.sleep(0.1)


def asked(url: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    """An answer of the console's API."""
    request = urllib.request.Request(url + path, data=body, headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
