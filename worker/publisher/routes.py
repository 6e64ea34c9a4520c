"""How an account's requests reach its provider: its certificates and its proxy."""

import base64
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from worker.errors import ConfigError
from worker.model.account import Account


class Proxy(Struct, frozen=True):
    """An HTTP proxy."""

    host: str
    port: int
    authorization: str | None
    """The value of the `Proxy-Authorization` header."""

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port})"  # without the credentials


class Route(Struct, frozen=True):
    """The TLS settings and proxy for all requests of an account."""

    tls: ssl.SSLContext | None = None
    """`None`: the default context for accounts without files of their own."""
    proxy: Proxy | None = None


def routes_of(accounts: Mapping[str, Account]) -> dict[str, Route]:
    """The routes by account. Reads the files; raises `ConfigError` with one line per mistake."""
    routes: dict[str, Route] = {}
    problems = []
    for name, account in accounts.items():
        try:
            routes[name] = Route(_own_tls(account), _proxy(account))
        except ConfigError as error:
            problems.append(f"[accounts.{name}] {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return routes


@cache
def default_tls() -> ssl.SSLContext:
    """Trusts the system's CA certificates; verifies names and certificates. Created once: it takes 50 ms."""
    return _speaking_http(ssl.create_default_context())


def _speaking_http(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context


def _own_tls(account: Account) -> ssl.SSLContext | None:
    ca, certificate, key = account.tls_ca_file, account.tls_cert_file, account.tls_key_file
    if bool(certificate) != bool(key):
        raise ConfigError("tls_cert_file and tls_key_file belong together: set both or neither")
    if not ca and not certificate:
        return None
    context = _trusting(ca) if ca else ssl.create_default_context()
    if certificate:
        for setting, file in (("tls_cert_file", certificate), ("tls_key_file", key)):
            _read(setting, file)
        try:
            # An empty password makes an encrypted key fail: otherwise OpenSSL would prompt on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError):
            raise ConfigError(
                f"tls_cert_file = {certificate!r}, tls_key_file = {key!r}: not a certificate and its key, "
                "both in PEM format, the key without a password"
            ) from None
    return _speaking_http(context)


def _trusting(file: str) -> ssl.SSLContext:
    """Trusts only the CA certificates in this file."""
    pem = _read("tls_ca_file", file).decode("ascii", "ignore")
    try:
        # With empty data it would load the system's CA certificates instead.
        return ssl.create_default_context(cadata=pem.strip() or "none")
    except (OSError, ValueError):
        raise ConfigError(f"tls_ca_file = {file!r}: contains no certificates in PEM format") from None


def _read(setting: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError(f"{setting} = {file!r}: cannot be read: {why}") from None


def _proxy(account: Account) -> Proxy | None:
    if not account.proxy:
        return None
    try:
        url = urlsplit(account.proxy)
        host, port, user, password = url.hostname, url.port, url.username, url.password
    except ValueError:
        host = port = user = password = None
    if not host or not port:  # not quoted: it may contain a password
        raise ConfigError('proxy must look like "http://proxy.example:3128"')
    if user is None:
        return Proxy(host, port, None)
    login = f"{unquote(user)}:{unquote(password or '')}"
    return Proxy(host, port, "Basic " + base64.b64encode(login.encode()).decode())
