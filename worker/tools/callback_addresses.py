"""Callback addresses: prints and verifies them."""

import json
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from schemas.base import SUBJECT_RULE, Subject
from worker.core.tokens import ROOT, Address, Tokens, read_path
from worker.errors import ConfigError, UsageError
from worker.model.callbacks import Caller, Purpose
from worker.providers.registry import CALLBACKS


def print_addresses(
    public_url: str,
    callers: Mapping[str, Caller],
    account: str,
    reference: str,
    purpose: str | None,
    *,
    as_json: bool,
) -> int:
    """Prints the addresses of an order, or of a seller; the exit code. Raises `UsageError`, `ConfigError`."""
    caller = callers.get(account)
    if caller is None:
        raise UsageError(f"no account {account}; configured are {', '.join(callers) or 'none'}")
    if not caller.callback_secrets:
        raise ConfigError(f"[accounts.{account}] callback_secrets is missing; `openssl rand -hex 32` makes one")
    known = _purposes(caller)
    if purpose is not None and purpose not in known:
        raise UsageError(f"{account} has no callbacks for {purpose}, only for {', '.join(known)}")
    tokens = Tokens(caller.callback_secrets)
    made = []
    for name, about in known.items():
        if purpose not in (None, name):
            continue
        _check_reference(account, name, about, reference)
        token = tokens.token(account, name, reference)
        address = {"purpose": name, "url": public_url + Address(account, name, token, reference).path()}
        if about.takes_token_in_body:
            address["url_for_token_in_body"] = public_url + Address(account, name).path()
            address["token"] = token
        made.append(address)
    if as_json:
        print(json.dumps({"account": account, "reference": reference, "addresses": made}, ensure_ascii=False))
        return 0
    for address in made:
        print(f"{address['purpose']:20} {address['url']}")
        if "token" in address:
            print(f"{'':20} or {address['url_for_token_in_body']} with the parameter token = {address['token']}")
    if not public_url:
        sys.stderr.write("cartsync: these are only paths: set [callbacks] public_url to get whole URLs\n")
    return 0


def _purposes(caller: Caller) -> dict[str, Purpose]:
    """The purposes of the account's callbacks."""
    purposes = CALLBACKS[caller.provider].purposes
    return {name: about for name, about in purposes.items() if not about.question or caller.lookups is not None}


def _check_reference(account: str, purpose: str, about: Purpose, reference: str) -> None:
    """Raises `UsageError`."""
    if about.has_reference != bool(reference):
        what = "is for one order: pass its reference" if about.has_reference else "is for the seller: pass no order"
        raise UsageError(f"the address for {purpose} {what}")
    if reference:
        try:
            msgspec.convert(f"{account}/{reference}", Subject)
        except msgspec.ValidationError:
            raise UsageError(f"not a valid order; expected {SUBJECT_RULE}") from None


def verify_address(callers: Mapping[str, Caller], given: str, *, as_json: bool) -> int:
    """Prints whether an address would be accepted: 0 yes, 1 no."""
    found, why, number = _verified(callers, given)
    if as_json:
        said = {"ok": number is not None, "why": why, "secret": None if number is None else number + 1}
        named = {} if found is None else {"account": found.account, "purpose": found.purpose}
        named |= {"reference": found.reference} if found is not None and found.reference else {}
        print(json.dumps(said | named, ensure_ascii=False))
    elif found is None or number is None:
        print(f"not accepted: {why}")
    else:
        about = f", order {found.reference}" if found.reference else ""
        which = "the one that signs" if number == 0 else f"number {number + 1} of callback_secrets, an old one"
        print(f"accepted: account {found.account}, purpose {found.purpose}{about}; by {which}")
    return 0 if number is not None else 1


def _verified(callers: Mapping[str, Caller], given: str) -> tuple[Address | None, str, int | None]:
    """The parsed address, why it would be refused, and the number of its secret."""
    path = given if given.startswith("/") else _path_of(given)
    address = read_path(path)
    if address is None:
        return (
            None,
            f"not a callback address: {ROOT}<account>/<purpose>/<token>/<reference>, each part encoded",
            None,
        )
    caller = callers.get(address.account)
    if caller is None or not caller.callback_secrets:
        return address, f"account {address.account} is not configured, or has no callback_secrets", None
    about = _purposes(caller).get(address.purpose)
    if about is None:
        return address, f"account {address.account} has no callbacks for {address.purpose}", None
    if address.token is None:
        return address, "it has no token; only one in the body could authorize it", None
    try:
        _check_reference(address.account, address.purpose, about, address.reference)
    except UsageError as error:
        return address, str(error), None
    tokens = Tokens(caller.callback_secrets)
    number = tokens.which(address.token, address.account, address.purpose, address.reference)
    return address, "" if number is not None else "the token belongs to another order, purpose or secret", number


def _path_of(url: str) -> str:
    """The rest of a URL from its path on, verbatim: an address with a query is not ours."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url[url.find(parts.netloc, len(parts.scheme)) + len(parts.netloc) :] if parts.netloc else ""
