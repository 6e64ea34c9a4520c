"""The providers in a scenario: their models, and their pushes."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from worker.errors import UsageError
from worker.model.account import Account
from worker.sandbox.atarapay.escrow import Act
from worker.sim.scripted import ScriptedProvider
from worker.tools.scenario.calls import Answered, Calls
from worker.tools.scenario.models import ProviderModel, Pushed, model_of
from worker.tools.scenario.steps import Checkout, EndValue, PushValue, QliroAct

_TICK_S = 0.002
"""Wall time has milliseconds: anything that ends within one is evaluated in the next."""


class Sides:
    """One model per account with a checkout. Orders are named `account/reference`."""

    def __init__(
        self,
        accounts: Mapping[str, Account],
        provider: ScriptedProvider,
        calls: Calls,
        loop: asyncio.AbstractEventLoop,
        wall_s: Callable[[], float],
    ) -> None:
        self.is_auto = False
        """Whether pushes are delivered automatically."""
        self._accounts = accounts
        self._provider = provider
        self._calls = calls
        self._loop = loop
        self._wall_s = wall_s
        self._models: dict[str, ProviderModel] = {}
        self._held_back: list[tuple[str, Pushed]] = []
        """Kept pushes with their accounts, oldest first."""
        self._newest: dict[str, tuple[str, Pushed]] = {}
        """The last delivered push, by order."""
        self._on_their_way: set[asyncio.Task[Any]] = set()

    def checkout(self, name: str, value: Checkout) -> None:
        """The shopper has paid. Raises `UsageError`."""
        account, _, reference = name.partition("/")
        if account not in self._models:
            model = self._models[account] = model_of(self._accounts[account], self._wall_s)
            model.told = lambda: self._on_told(model)
            self._provider.models[account] = model
        self._models[account].checkout(reference, value)

    def act(self, name: str, what: Act | QliroAct) -> None:
        """Somebody acts at the provider. Raises `UsageError`."""
        model, reference = self._of(name)
        model.act(reference, what)

    def end(self, name: str, ends: Iterable[EndValue]) -> None:
        """How the next commands of an order end. Raises `UsageError`."""
        model, reference = self._of(name)
        model.end(reference, ends)

    def shown(self, name: str) -> dict[str, Any]:
        """The state of an order. Raises `UsageError`."""
        model, reference = self._of(name)
        return model.shown(reference)

    async def push(self, value: PushValue) -> Answered:
        """Delivers one push. Raises `UsageError` if there is none."""
        self._of(value.order)
        self._collect()
        if value.again:
            if value.order not in self._newest:
                raise UsageError(f"{value.order}: nothing was pushed yet")
            return await self._deliver(*self._newest[value.order])
        for index, (account, each) in enumerate(self._held_back):
            if value.order == f"{account}/{each.reference}":
                del self._held_back[index]
                return await self._deliver(account, each)
        raise UsageError(f"{value.order}: there is nothing to push")

    # --- inside ---

    def _of(self, name: str) -> tuple[ProviderModel, str]:
        account, _, reference = name.partition("/")
        if account not in self._models:
            raise UsageError(f"no checkout as {name}")
        return self._models[account], reference

    def _collect(self) -> None:
        for account, model in self._models.items():
            self._held_back += [(account, each) for each in model.pushes()]

    async def _deliver(self, account: str, pushed: Pushed) -> Answered:
        self._newest[f"{account}/{pushed.reference}"] = account, pushed
        path = self._calls.path(account, pushed.purpose, "" if pushed.of_seller else pushed.reference)
        return await self._calls.call(path, {"Content-Type": pushed.media_type}, pushed.body)

    def _on_told(self, model: ProviderModel) -> None:
        due = model.due()
        wait_s = 0.0 if due is None else max(0.0, due - self._wall_s()) + _TICK_S
        self._loop.call_later(wait_s, self._look, model)

    def _look(self, model: ProviderModel) -> None:
        if not self.is_auto:
            return
        self._collect()
        held_back, self._held_back = self._held_back, []
        for each in held_back:
            task = self._loop.create_task(self._deliver(*each))
            self._on_their_way.add(task)
            task.add_done_callback(self._on_their_way.discard)
        if model.due() is not None:
            self._on_told(model)
