"""Who is let in, and as what."""

import asyncio
import base64
import os
import threading
from pathlib import Path

import pytest
from multidict import CIMultiDict

from worker.errors import ConfigError, UsageError
from worker.web.console.auth import (
    Basic,
    Denied,
    Loopback,
    Proxied,
    Tokens,
    User,
    read_users,
    remove_user,
    write_user,
)

PASSWORD = "correct horse"


class Asked:
    """A request, as far as it is looked at."""

    def __init__(self, remote: str = "127.0.0.1", **headers: str) -> None:
        self.remote: str | None = remote
        self.headers = CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()})


def signed(name: str, password: str, **headers: str) -> Asked:
    """A request with credentials."""
    text = base64.b64encode(f"{name}:{password}".encode()).decode()
    return Asked(Authorization=f"Basic {text}", **headers)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A file with two users."""
    path = tmp_path / "users"
    assert write_user(path, "ana", "operator", PASSWORD)
    assert write_user(path, "ben", "viewer", "another password")
    return path


async def test_loopback() -> None:
    """Whoever is on this machine acts."""
    assert await Loopback().who(Asked()) == User("local", "operator")


async def test_right_passwords(users: Path) -> None:
    """Each user with his role, also when the answer is remembered."""
    auth = Basic(users)
    for _ in range(2):
        assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")
        assert await auth.who(signed("ben", "another password")) == User("ben", "viewer")


@pytest.mark.parametrize(
    "request_",
    [
        *(Asked(), signed("ana", "wrong"), signed("eve", PASSWORD), signed("ana", ""), signed("", PASSWORD)),
        *(Asked(Authorization="Basic !"), Asked(Authorization="Bearer x"), Asked(Authorization="Basic //8=")),
        *(Asked(Authorization="Basic YW5h"), signed("ana", "x" * 2000), signed("ANA", PASSWORD)),
    ],
)
async def test_wrong_passwords(users: Path, request_: Asked) -> None:
    """Nobody is let in without one that fits."""
    found = await Basic(users).who(request_)
    assert isinstance(found, Denied)
    assert found.status == 401


async def test_guessing_is_slow(users: Path) -> None:
    """After some wrong passwords for a name from an address it has to wait; others, and what is remembered, need not."""
    clock = Clock()
    auth = Basic(users, clock)
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")
    found = [await auth.who(signed("ana", f"guess {number}")) for number in range(12)]
    assert [each.status for each in found if isinstance(each, Denied)].count(429) == 2
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")
    assert await auth.who(signed("ben", "another password")) == User("ben", "viewer")
    fresh = Basic(users, clock)
    assert [isinstance(await fresh.who(signed("ana", f"guess {number}")), Denied) for number in range(12)] == [
        True
    ] * 12
    assert isinstance(await fresh.who(signed("ana", PASSWORD)), Denied)
    elsewhere = signed("ana", PASSWORD)
    elsewhere.remote = "127.0.0.2"
    assert await fresh.who(elsewhere) == User("ana", "operator")
    clock.s += 50_000  # what was remembered is forgotten, and the address may ask again
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")


async def test_guessing_names_is_slow(users: Path) -> None:
    """An address that takes a new name for each guess has to wait, too; other addresses need not."""
    auth = Basic(users, Clock())
    found = [await auth.who(signed(f"user{number}", PASSWORD)) for number in range(22)]
    assert [each.status for each in found if isinstance(each, Denied)] == [401] * 20 + [429] * 2
    elsewhere = signed("ana", PASSWORD)
    elsewhere.remote = "127.0.0.2"
    assert await auth.who(elsewhere) == User("ana", "operator")


async def test_signed_in_all_day(users: Path) -> None:
    """Whoever has signed in is not refused because of other people's guesses, hours later either."""
    clock = Clock()
    auth = Basic(users, clock)
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")
    clock.s += 36_000
    for number in range(12):
        assert isinstance(await auth.who(signed("ana", f"guess {number}")), Denied)
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")


async def test_checks_that_wait_are_bounded(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most eight passwords wait to be checked; the next is refused at once, but for those who are signed in."""
    auth = Basic(users, Clock())
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")
    go_on = threading.Event()

    def slow(_line: object, _password: str) -> bool:
        return go_on.wait(20) and False

    monkeypatch.setattr("worker.web.console.auth._fits", slow)
    requests = [signed("ben", "wrong") for _ in range(8)]
    for number, each in enumerate(requests):
        each.remote = f"10.0.0.{number}"
    waiting = [asyncio.create_task(auth.who(each)) for each in requests]
    await asyncio.sleep(0)
    ninth = await asyncio.wait_for(auth.who(signed("ben", "another password")), 10)
    signed_in = await auth.who(signed("ana", PASSWORD))
    go_on.set()
    assert isinstance(ninth, Denied)
    assert ninth.status == 429
    assert signed_in == User("ana", "operator")
    assert [each.status for each in await asyncio.gather(*waiting) if isinstance(each, Denied)] == [401] * 8


async def test_guesses_behind_a_proxy(users: Path) -> None:
    """Behind our proxy the forwarded address counts: wrong passwords from elsewhere do not lock a user out."""
    for proxies, expected in ((["127.0.0.0/8"], User("ana", "operator")), ([], None)):
        auth = Basic(users, Clock(), forwarded_from=proxies)
        for number in range(12):
            await auth.who(signed("ana", f"guess {number}", X_Forwarded_For="192.0.2.1"))
        found = await auth.who(signed("ana", PASSWORD, X_Forwarded_For="192.0.2.2"))
        assert (None if isinstance(found, Denied) else found) == expected


async def test_file_is_read_again(users: Path) -> None:
    """A user who was removed, or has another password, is not let in by what is remembered."""
    auth = Basic(users)
    assert await auth.who(signed("ana", PASSWORD)) == User("ana", "operator")
    assert not write_user(users, "ana", "viewer", "a new password")
    assert isinstance(await auth.who(signed("ana", PASSWORD)), Denied)
    assert await auth.who(signed("ana", "a new password")) == User("ana", "viewer")
    assert remove_user(users, "ana")
    assert isinstance(await auth.who(signed("ana", "a new password")), Denied)
    await asyncio.to_thread(users.write_text, "broken")
    assert await auth.who(signed("ben", "another password")) == User("ben", "viewer")


def test_file_holds_no_password(users: Path) -> None:
    """Only hashes, each with its salt, and nobody else reads it."""
    text = users.read_text()
    assert PASSWORD not in text
    assert users.stat().st_mode & 0o077 == 0
    write_user(users, "eva", "viewer", PASSWORD)
    lines = {line.split(":")[0]: line.split("$")[-1] for line in users.read_text().splitlines()}
    assert lines["eva"] != lines["ana"]


def test_file_keeps_its_mode(users: Path) -> None:
    """A group that may read the file still may after a user was added."""
    users.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(users, 1234, 1235)
    before = users.stat()
    write_user(users, "eva", "viewer", PASSWORD)
    after = users.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.parametrize("name", ["", "a:b", "a b", "ä", "x" * 65, "a\nb:operator:scrypt"])
def test_names(tmp_path: Path, name: str) -> None:
    """What cannot be a name is refused, and nothing is written."""
    with pytest.raises(UsageError, match="a user's name"):
        write_user(tmp_path / "users", name, "viewer", PASSWORD)
    assert not (tmp_path / "users").exists()


def test_short_passwords(tmp_path: Path) -> None:
    """Are refused."""
    with pytest.raises(UsageError, match="10 to 1024 characters"):
        write_user(tmp_path / "users", "ana", "viewer", "short")


@pytest.mark.parametrize(
    "line",
    [
        *("ana", "ana:admin:scrypt$16384$8$1$" + "A" * 22 + "==$" + "A" * 43 + "="),
        *("ana:viewer:plain", "ana:viewer:scrypt$9999999$8$1$" + "A" * 22 + "==$" + "A" * 43 + "="),
    ],
)
def test_broken_files(tmp_path: Path, line: str) -> None:
    """A file that is not ours is named by its line, and never overwritten."""
    path = tmp_path / "users"
    path.write_text(f"# users\n\n{line}\n")
    with pytest.raises(ConfigError, match="line 3"):
        read_users(path)
    with pytest.raises(ConfigError, match="line 3"):
        write_user(path, "ben", "viewer", PASSWORD)
    assert path.read_text() == f"# users\n\n{line}\n"


def test_missing_file(tmp_path: Path) -> None:
    """Says what writes it."""
    with pytest.raises(ConfigError, match="cartsync console user add"):
        Basic(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_user(tmp_path / "none" / "users", "ana", "viewer", PASSWORD)


PROXIED = Proxied("X-Forwarded-User", ["10.0.0.0/8", "::1"], ["ana@shop"])


@pytest.mark.parametrize(
    ("remote", "name", "expected"),
    [
        ("10.1.2.3", "ana@shop", User("ana@shop", "operator")),
        ("::ffff:10.1.2.3", "ana@shop", User("ana@shop", "operator")),
        ("::1", "ben", User("ben", "viewer")),
        ("10.1.2.3", "", 401),
        ("10.1.2.3", "a b", 401),
        ("10.1.2.3", "ana@shop, eve", 401),
        ("11.1.2.3", "ana@shop", 403),
        ("", "ana@shop", 403),
    ],
)
async def test_proxies(remote: str, name: str, expected: User | int) -> None:
    """The header counts from the proxy's address alone, and names one person."""
    found = await PROXIED.who(Asked(remote, X_Forwarded_User=name))
    assert (found.status if isinstance(found, Denied) else found) == expected


def test_tokens() -> None:
    """Each user has his own; those of another role, or of another process, do not fit."""
    ana, tokens = User("ana", "operator"), Tokens(b"k")
    assert tokens.fits(ana, tokens.of(ana))
    for other in (tokens.of(User("ben", "operator")), tokens.of(User("ana", "viewer")), Tokens(b"l").of(ana), "", "ä"):
        assert not tokens.fits(ana, other)
