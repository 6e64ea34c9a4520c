"""Every provider, registered once: what there is of it, by the `provider` of an account (`ADDING.md`)."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from worker.model.callbacks import Callbacks
from worker.model.jobs import Jobs
from worker.model.provider import Provider
from worker.model.reconcile import Reconciler
from worker.providers.atarapay import AtaraPay
from worker.providers.atarapay.callbacks import AtaraPayCallbacks
from worker.providers.atarapay.reconcile import AtaraPayReconciler
from worker.providers.qliro import Qliro
from worker.providers.qliro.callbacks import QliroCallbacks
from worker.providers.qliro.reconcile import QliroReconciler
from worker.providers.sequra import Sequra
from worker.providers.sequra.callbacks import SequraCallbacks
from worker.providers.sequra.jobs import SequraDisbursements, SequraReports
from worker.providers.sequra.reconcile import SequraReconciler


class Registration(Struct, frozen=True):
    """What the worker asks a provider for."""

    adapter: Provider[Any]
    callbacks: Callbacks
    """How its callbacks are read."""
    reconciler: Reconciler
    """How orders are compared with its data."""
    jobs: Jobs | None = None
    """What runs on a schedule; `None`: nothing does."""


_REGISTERED = (
    Registration(AtaraPay(), AtaraPayCallbacks(), AtaraPayReconciler()),
    Registration(Qliro(), QliroCallbacks(), QliroReconciler()),
    Registration(Sequra(), SequraCallbacks(), SequraReconciler(), Jobs(SequraReports(), (SequraDisbursements(),))),
)
PROVIDERS: Mapping[str, Provider[Any]] = {each.adapter.name: each.adapter for each in _REGISTERED}
CALLBACKS: Mapping[str, Callbacks] = {each.adapter.name: each.callbacks for each in _REGISTERED}
JOBS: Mapping[str, Jobs] = {each.adapter.name: each.jobs for each in _REGISTERED if each.jobs is not None}
RECONCILERS: Mapping[str, Reconciler] = {each.adapter.name: each.reconciler for each in _REGISTERED}


def describer(providers: Mapping[str, str]) -> Callable[[str, bytes], Mapping[str, Any] | None]:
    """What adapters know of the provider's side. `providers`: by account."""

    def describe(account: str, remote: bytes) -> Mapping[str, Any] | None:
        provider = PROVIDERS.get(providers.get(account, ""))
        return None if provider is None else provider.describe(remote)

    return describe
