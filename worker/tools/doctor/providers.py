"""What `cartsync doctor` says of each account's provider: its name, its certificate, and whether it takes us in.

The credentials are shown by a read of an order that there is not, or of a list: it changes nothing anywhere.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from schemas.commands import DoctorCheck
from worker import __version__
from worker.config import HttpSection
from worker.errors import ConfigError
from worker.model.account import Account
from worker.model.exchange import Fault, HttpRequest, HttpResponse, Outcome, OutcomeKind
from worker.providers.registry import RECONCILERS
from worker.publisher.routes import Route, default_tls, routes_of
from worker.publisher.sender import HttpSender

_WITHIN_S = 10.0
_CERTIFICATE_WARN_DAYS = 21
_ACCEPTED = frozenset({OutcomeKind.APPLIED, OutcomeKind.NOT_FOUND})


async def provider_checks(accounts: Mapping[str, Account], http: HttpSection) -> AsyncIterator[DoctorCheck]:
    """Each account in turn."""
    try:
        routes = routes_of(accounts)
    except ConfigError as error:
        yield DoctorCheck("provider", "", "fail", str(error), "mend the files of the account")
        return
    if not accounts:
        return
    sender = HttpSender(
        deadline_s=_WITHIN_S,
        user_agent=f"cartsync/{__version__}",
        body_max_bytes=http.response_max_bytes,
        accounts=accounts,
    )
    try:
        for name, account in accounts.items():
            async for check in _of_account(account, routes.get(name, Route()), sender):
                yield check
    finally:
        await sender.close()


async def _of_account(account: Account, route: Route, sender: HttpSender) -> AsyncIterator[DoctorCheck]:
    url = urlsplit(account.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    if route.proxy is not None:
        text = f"requests go through the proxy {route.proxy.host}:{route.proxy.port}, which looks {host} up"
        yield DoctorCheck("provider", account.name, "ok", text, "")
        found = await _addresses(route.proxy.host, route.proxy.port)
    else:
        found = await _addresses(host, port)
    if isinstance(found, str):
        action = "see whether base_url (or proxy) is right, and DNS works on this machine"
        yield DoctorCheck("provider", account.name, "fail", found, action)
        return
    if route.proxy is None:
        yield DoctorCheck("provider", account.name, "ok", f"{host} is {', '.join(found)}", "")
        if url.scheme == "https":
            yield await _tls_check(account.name, host, port, route.tls or default_tls())
        else:
            yield DoctorCheck("provider", account.name, "warn", "base_url is http: nothing is encrypted", "use https")
    for check in credentials_checks(account, await _asked(account, sender)):
        yield check


async def _addresses(host: str, port: int) -> list[str] | str:
    """What a name stands for, or why that is not known."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_WITHIN_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        return f"{host} cannot be looked up: {getattr(error, 'strerror', None) or 'no answer'}"
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def _tls_check(account: str, host: str, port: int, context: ssl.SSLContext) -> DoctorCheck:
    try:
        async with asyncio.timeout(_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        text = f"the certificate of {host} is not trusted: {error.verify_message}"
        return DoctorCheck("provider", account, "fail", text, "set tls_ca_file of the account, or mend the certificate")
    except (OSError, TimeoutError) as error:
        text = f"no TLS connection to {host}:{port}: {getattr(error, 'strerror', None) or type(error).__name__}"
        return DoctorCheck("provider", account, "fail", text, "see whether a firewall lets this machine out")
    try:
        transport = writer.get_extra_info("ssl_object")
        return tls_check(account, host, transport.version(), transport.getpeercert(), time.time())
    finally:
        writer.close()


def tls_check(account: str, host: str, version: str | None, certificate: object, now: float) -> DoctorCheck:
    """What a verified certificate says of itself."""
    ends = certificate.get("notAfter") if isinstance(certificate, dict) else None
    if not isinstance(ends, str):
        return DoctorCheck("provider", account, "ok", f"{host} speaks {version}", "")
    left = int(ssl.cert_time_to_seconds(ends) - now)
    day = datetime.fromtimestamp(now + left, UTC).date().isoformat()
    text = f"{host} speaks {version}; its certificate is valid until {day}"
    if left < _CERTIFICATE_WARN_DAYS * 86_400:
        return DoctorCheck("provider", account, "warn", text, "ask the provider whether it will be renewed in time")
    return DoctorCheck("provider", account, "ok", text, "")


async def _asked(account: Account, sender: HttpSender) -> Outcome:
    request: HttpRequest = RECONCILERS[account.provider].probe(account)
    answer: HttpResponse | Fault = await sender.send(request, _WITHIN_S, lambda: True)
    if isinstance(answer, Fault):
        return Outcome(OutcomeKind.NOT_SENT, answer.detail)
    return RECONCILERS[account.provider].probed(account, answer, time.time_ns() // 1_000_000)


def credentials_checks(account: Account, outcome: Outcome) -> Iterator[DoctorCheck]:
    """What the answer to a harmless read says of the credentials."""
    reconciler, name = RECONCILERS[account.provider], account.name
    if outcome.kind in _ACCEPTED or reconciler.is_unknown(account, outcome):
        yield DoctorCheck("provider", name, "ok", f"{reconciler.title} accepts the credentials", "")
    elif outcome.kind is OutcomeKind.CREDENTIALS:
        text = f"{reconciler.title} rejects the credentials ({outcome.reason})"
        action = f"give the right ones, then `cartsync account resume {name}`, for running workers have paused it"
        yield DoctorCheck("provider", name, "fail", text, action)
    elif outcome.kind is OutcomeKind.FORBIDDEN:
        text = f"{reconciler.title} knows the credentials, and does not allow this read ({outcome.reason})"
        yield DoctorCheck("provider", name, "warn", text, "ask the provider whether the account may do what it has to")
    elif outcome.kind in (OutcomeKind.NOT_SENT, OutcomeKind.UNKNOWN, OutcomeKind.REJECTED):
        text = f"{reconciler.title} does not answer ({outcome.reason})"
        yield DoctorCheck("provider", name, "fail", text, "see whether it is down, or a firewall is in between")
    else:
        text = f"{reconciler.title} answers, but says nothing of the credentials ({outcome.reason})"
        yield DoctorCheck("provider", name, "warn", text, "see whether base_url is right")
