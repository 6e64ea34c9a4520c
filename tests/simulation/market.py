"""The providers of a run: an account of each, its other side, and what people do there by themselves."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from random import Random
from typing import Any

from tests.shops.records import History
from tests.simulation.atarapay_side import AtaraPaySide
from tests.simulation.callbacks import Callbacks
from tests.simulation.provider import Provider
from tests.simulation.qliro_side import QliroSide
from tests.simulation.sides import Side
from tests.simulation.trace import Trace
from worker.model.account import Account
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.qliro.options import QliroAccount
from worker.providers.sequra.options import SequraAccount
from worker.sandbox.atarapay.escrow import Act

SEQURA = {"acme": "sequra", "beta": "sequra"}
ALL = {"acme": "sequra", "pago": "qliro", "escrow": "atarapay"}
"""Providers by account: each order of one provider, or orders of all three beside each other."""
POLLS_S = (5.0, 5.0, 10.0, 20.0) + 40 * (30.0,)
"""Of a run in which pushes are lost."""
ACT_EVERY_S = 1.0
"""So often somebody tries something at AtaraPay; mostly it cannot be done."""
_ACTS = {
    Act.ACCEPT: 10,
    Act.REJECT: 20,
    Act.AGREE_SECOND_ATTEMPT: 30,
    Act.DISPUTE: 1,
    Act.DROP_DISPUTE: 1,
    Act.PAY_OUT: 1,
    Act.CANCEL_AS_BUYER: 0.3,
    Act.CANCEL_AS_SELLER: 0.3,
}


class Market:
    """All accounts of a run."""

    def __init__(self, random: Random, trace: Trace, providers: Mapping[str, str]) -> None:
        """`providers`: by account."""
        is_other = set(providers.values()) != {"sequra"}
        # Either calls are lost, and asking finds out, or they come, and bring on what nobody asks about for an hour.
        lost = random.choice((0.0, 0.2)) if is_other else 0.0
        self.callbacks = Callbacks(random, trace, providers, lost=lost)
        self.accounts = {name: _account(name, provider, random, lost > 0) for name, provider in providers.items()}
        sequra = Provider(trace)
        self.sides: dict[str, Side] = {}
        for name, account in self.accounts.items():
            if isinstance(account, QliroAccount):
                self.sides[name] = QliroSide(account, random, trace, self.callbacks)
            elif isinstance(account, AtaraPayAccount):
                self.sides[name] = AtaraPaySide(account, random, trace, self.callbacks)
            else:
                self.sides[name] = sequra
        self._random = random

    def open(self, history: History) -> None:
        """Every shopper has paid."""
        for subject, first in history.confirmed.items():
            side = self.sides[subject.partition("/")[0]]
            if isinstance(side, QliroSide | AtaraPaySide):
                side.checkout(first, history.orders[subject])

    def people(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What they do by themselves, for ever."""
        return (self._act(side) for side in self.sides.values() if isinstance(side, AtaraPaySide) and side.known)

    async def _act(self, side: AtaraPaySide) -> None:
        random = self._random
        while True:
            await asyncio.sleep(random.expovariate(1.0 / ACT_EVERY_S))
            number = random.choice(list(side.known))
            side.act(number, random.choices(list(_ACTS), list(_ACTS.values()))[0])

    def calm(self) -> None:
        """Every command comes through from now on, and every call."""
        self.callbacks.is_calm = True
        for side in self.sides.values():
            if isinstance(side, QliroSide):
                side.fate.share = 0.0

    def is_quiet(self) -> bool:
        """Nothing is under way at providers, nor from them."""
        return not self.callbacks.under_way and all(side.is_quiet() for side in self.sides.values())


def _account(name: str, provider: str, random: Random, polls_often: bool) -> Account:
    concurrency, rate = random.choice(((32, 0.0), (4, 0.0), (8, 20.0)))
    common: dict[str, Any] = {
        "name": name,
        "provider": provider,
        "base_url": f"https://{provider}.example",
        "concurrency": concurrency,
        "rate_per_s": rate,
    }
    if provider == "qliro":
        polls = POLLS_S if polls_often else (5.0,)
        return QliroAccount(api_key="HATS", api_secret="secret", poll_after_s=polls, **common)
    if provider == "atarapay":
        return AtaraPayAccount(public_key="the public key", private_key="the private key", **common)
    return SequraAccount(merchant_id=name, username="u", password="p", **common)
