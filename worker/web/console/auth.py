"""Who may see the console, and who may act: nobody is asked on loopback, users of a file, or whom a proxy names."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal, Protocol, cast

import structlog
from msgspec import Struct

from schemas.console import Role
from worker.errors import ConfigError, UsageError
from worker.metrics import SignInFailure
from worker.web.limits import Peers, Rate

log = structlog.get_logger(__name__)

_NAME_MAX = 64
NAME = re.compile(rf"[A-Za-z0-9._@+-]{{1,{_NAME_MAX}}}")
PASSWORD_MIN = 10
"""Characters."""
PASSWORD_MAX = 1024
_N, _R, _P = 2**14, 8, 1
"""Of scrypt: 16 MiB and some 50 ms for each guess."""
_SALT_BYTES, _KEY_BYTES = 16, 32
_KEPT_S = 43_200.0
"""For how long it is remembered that a password was right: a working day, in which other people's guesses refuse nobody
who has signed in. A user who is removed or changed is forgotten at once.
"""
_KEPT_MAX = 1_000
_GUESSES_A_SECOND = 1.0
"""Wrong passwords for one name from one address, after a burst."""
_PEER_GUESSES_A_SECOND = 2.0
"""Wrong passwords from one address, whatever the names, after a burst."""
_BURST = 10.0
"""Seconds' worth."""
_CHECKING_MAX = 8
"""Passwords that wait to be checked, with the one being checked: less than half a second of work."""


class User(Struct, frozen=True):
    """Who asks."""

    name: str
    role: Role


MAY_ONLY_LOOK = "you may look; to act takes the role operator"


class Denied(Struct, frozen=True):
    """Why nobody is let in."""

    status: Literal[401, 403, 429]
    detail: str
    reason: SignInFailure


class Headers(Protocol):
    """Headers by their names, in any case; each may occur several times."""

    def get(self, name: str, default: str, /) -> str: ...
    def getall(self, name: str, default: Sequence[str], /) -> Sequence[str]: ...


class Request(Protocol):
    """What is looked at of a request."""

    @property
    def headers(self) -> Headers: ...
    @property
    def remote(self) -> str | None: ...


class Auth(Protocol):
    """Finds out who asks."""

    async def who(self, request: Request) -> User | Denied:
        """The user, or why there is none."""
        ...


class Loopback:
    """Whoever is on this machine is an operator."""

    async def who(self, _request: Request) -> User | Denied:
        """Always the same."""
        return User("local", "operator")


class Proxied:
    """Whom a proxy names; it has found out."""

    def __init__(self, header: str, proxies: Iterable[str], operators: Iterable[str]) -> None:
        """Raises `ValueError` for what is no address or network."""
        self._header = header
        self._proxies = [ip_network(each) for each in proxies]
        self._operators = frozenset(operators)

    async def who(self, request: Request) -> User | Denied:
        """By the header, from a proxy that is believed."""
        if not self._is_proxy(request.remote or ""):
            return Denied(403, "this console is reached through its proxy alone", "elsewhere")
        name = request.headers.get(self._header, "")
        if not NAME.fullmatch(name):
            return Denied(401, f"the proxy has named nobody in {self._header}", "unnamed")
        return User(name, "operator" if name in self._operators else "viewer")

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address.version == proxy.version and address in proxy for proxy in self._proxies)


class Basic:
    """Users of a file, by HTTP's basic authentication. The file is read again when it has changed."""

    def __init__(
        self, path: Path, now: Callable[[], float] = time.monotonic, *, forwarded_from: Iterable[str] = ()
    ) -> None:
        """`forwarded_from`: proxies whose `X-Forwarded-For` names the client. Raises `ConfigError` when the file cannot
        be read.
        """
        self._path = path
        self._now = now
        self._users = read_users(path)
        self._read_at = _changed_at(path)
        self._key = os.urandom(32)
        self._kept: dict[bytes, float] = {}
        """What was right, as a MAC under a key of this process, and until when that is believed."""
        self._peers = Peers(forwarded_from)
        self._wrong = Rate(_GUESSES_A_SECOND, _BURST)
        self._wrong_of_peer = Rate(_PEER_GUESSES_A_SECOND, _BURST)
        self._waiting = 0
        self._checking = asyncio.Lock()
        """One at a time: each takes 16 MiB."""

    async def who(self, request: Request) -> User | Denied:
        """By user and password."""
        self._reread()
        name, password = _credentials(request.headers.get("Authorization", ""))
        if not name:
            return Denied(401, "sign in with a user of the console", "unnamed")
        line = self._users.get(name)
        proof = hmac.digest(self._key, f"{name}\0{line}\0{password}".encode("utf-8", "replace"), "sha256")
        now = self._now()
        if self._kept.get(proof, 0.0) <= now:
            peer = self._peers.of(request.remote or "", request.headers.getall("X-Forwarded-For", ()))
            guessed = f"{peer} {name[:_NAME_MAX]}"
            if self._waiting >= _CHECKING_MAX:
                return Denied(429, "too many people are signing in at once; try again in a moment", "limited")
            if not self._wrong_of_peer.take(peer, now) or not self._wrong.take(guessed, now):
                return Denied(429, "too many wrong passwords; wait a moment", "limited")
            self._waiting += 1
            try:
                async with self._checking:
                    is_right = await asyncio.to_thread(_fits, line, password)
            finally:
                self._waiting -= 1
            if not is_right:
                shown = name if NAME.fullmatch(name) else ""
                log.warning("console_sign_in_refused", user=shown, peer=peer, sampled_by="sign_in")
                return Denied(401, "user and password do not fit", "wrong")
            self._wrong.give_back(guessed)
            self._wrong_of_peer.give_back(peer)
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[proof] = now + _KEPT_S
        assert line is not None  # it fits
        return User(name, line.role)

    def _reread(self) -> None:
        changed_at = _changed_at(self._path)
        if changed_at == self._read_at:
            return
        self._read_at = changed_at
        problem = ""
        try:
            self._users = read_users(self._path)
        except ConfigError as error:
            problem = str(error)
        else:
            log.info("console_users_read", count=len(self._users))
        if problem:
            log.error("console_users_unreadable", error=problem, holds="the old ones")


class _Line(Struct, frozen=True):
    """A user of the file."""

    role: Role
    n: int
    r: int
    p: int
    salt: bytes
    key: bytes


def read_users(path: Path) -> dict[str, _Line]:
    """The users of a file, by name. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "it is not UTF-8")
        raise ConfigError(
            f"[console] users_file: {path}: cannot be read: {reason}; `cartsync console user add NAME` writes it"
        ) from None
    users: dict[str, _Line] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ConfigError(
                f"{path}, line {number}: expected what `cartsync console user add` writes: NAME:ROLE:scrypt$…"
            )
        n, r, p = int(found["n"]), int(found["r"]), int(found["p"])
        if not 128 * n * r <= _MEMORY_MAX or n & (n - 1):
            raise ConfigError(f"{path}, line {number}: these parameters of scrypt are not accepted")
        salt, key = (base64.b64decode(found[each]) for each in ("salt", "key"))
        users[found["name"]] = _Line(cast(Role, found["role"]), n, r, p, salt, key)
    return users


_MEMORY_MAX = 64 * 2**20
_LINE = re.compile(
    rf"(?P<name>{NAME.pattern}):(?P<role>viewer|operator):scrypt"
    r"\$(?P<n>\d{1,7})\$(?P<r>\d{1,2})\$(?P<p>\d{1,2})\$(?P<salt>[A-Za-z0-9+/]{22}==)\$(?P<key>[A-Za-z0-9+/]{43}=)"
)


def write_user(path: Path, name: str, role: Role, password: str) -> bool:
    """Adds a user to the file, or changes one; whether the name is new. Raises `UsageError`, `ConfigError`."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r}: a user's name has up to 64 letters, digits or . _ @ + -")
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise UsageError(f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters")
    if path.exists():
        read_users(path)  # what is not ours is not overwritten
    salt = os.urandom(_SALT_BYTES)
    key = _scrypt(password, salt, _N, _R, _P)
    salt_text, key_text = (base64.b64encode(each).decode() for each in (salt, key))
    line = f"{name}:{role}:scrypt${_N}${_R}${_P}${salt_text}${key_text}"
    return _replace_line(path, name, line)


def remove_user(path: Path, name: str) -> bool:
    """Takes a user out of the file; whether there was one. Raises `ConfigError`."""
    return name in read_users(path) and not _replace_line(path, name, None)


def _replace_line(path: Path, name: str, line: str | None) -> bool:
    """Whether there was none of this name. Raises `ConfigError`."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [each for each in old if not each.startswith(f"{name}:")]
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write("\n".join([*kept, *([] if line is None else [line])]) + "\n")
            if path.exists():  # the console may run as another user, or read it as a group
                found = path.stat()
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
                os.fchmod(file.fileno(), found.st_mode & 0o777)
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    return len(kept) == len(old)


_NOBODY = _Line("viewer", _N, _R, _P, bytes(_SALT_BYTES), bytes(_KEY_BYTES))


def _fits(line: _Line | None, password: str) -> bool:
    """As long for a name that there is not."""
    expected = line or _NOBODY
    key = _scrypt(password, expected.salt, expected.n, expected.r, expected.p)
    return hmac.compare_digest(key, expected.key) and line is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=2 * _MEMORY_MAX, dklen=_KEY_BYTES)


def _credentials(header: str) -> tuple[str, str]:
    """User and password of RFC 7617; empty when there are none."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (name, password) if colon and len(password) <= PASSWORD_MAX else ("", "")


def _changed_at(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


class Tokens:
    """What a form has to carry: a token of the user's, which a page of another site cannot know."""

    def __init__(self, key: bytes) -> None:
        """`key`: of this process; tokens of another one do not hold here."""
        self._key = key

    def of(self, user: User) -> str:
        """The token of a user."""
        return hmac.digest(self._key, f"{user.name}\0{user.role}".encode(), "sha256").hex()

    def fits(self, user: User, token: str) -> bool:
        """Whether it is his."""
        return hmac.compare_digest(self.of(user).encode(), token.encode("utf-8", "replace"))
