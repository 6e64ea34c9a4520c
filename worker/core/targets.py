"""Whom each account tells, and what follows when that is another one than before. Pure.

What was acknowledged was acknowledged by somebody: a provider's sandbox knows nothing of its live system, nor one
merchant of another. So the state remembers whom it told, and a change of that needs an operator's word.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal
from urllib.parse import urlsplit

from schemas.state import Target
from worker.errors import ConfigError
from worker.model.account import Account

TargetChoice = Literal["send", "keep"]
"""All orders are told anew, or what the former one was told counts as told."""

_DEFAULT_PORTS = {"https": 443, "http": 80}


def target_of(account: Account) -> Target:
    """Whom the account tells; ways to write one address are one."""
    url = urlsplit(account.base_url)
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if url.port in (None, _DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
    return Target(account.provider, f"{url.scheme}://{host}{port}{url.path.rstrip('/')}", account.merchant)


def check_targets(accounts: Mapping[str, Account]) -> None:
    """Raises `ConfigError` when two accounts tell the same: their orders would overwrite each other."""
    first: dict[Target, str] = {}
    problems = []
    for name, account in accounts.items():
        other = first.setdefault(target_of(account), name)
        if other != name:
            problems.append(
                f"[accounts.{name}] and [accounts.{other}] are the same merchant {account.merchant} of "
                f"{account.provider} at the same base_url: their orders would overwrite each other. Remove one of them"
            )
    if problems:
        raise ConfigError("\n".join(problems))


class TargetChange(ConfigError):  # noqa: N818 - what is wrong is that nobody said what follows
    """An account tells another one than before, and nobody has said what follows from that."""


def changed_targets(told: Mapping[str, Target], accounts: Iterable[Account]) -> Iterator[tuple[str, Target, Target]]:
    """(account, old, new) of the accounts that tell another one than before."""
    for account in accounts:
        before, now = told.get(account.name), target_of(account)
        if before is not None and before != now:
            yield account.name, before, now


def needs_choice(account: str, old: Target, new: Target, orders: int, partition: int) -> TargetChange:
    """Says what has changed, and the two things that may follow."""
    return TargetChange(
        f"account {account}: {orders} orders of partition {partition} were told to {old}; the configuration now says "
        f"{new}, which may know nothing of them. Say what follows: `cartsync run --accept-target {account}=send` tells "
        f"all orders of the account anew, `--accept-target {account}=keep` takes what was told for told there, too"
    )
