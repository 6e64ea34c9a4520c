"""Every adapter, by the `provider` of an account."""

from collections.abc import Mapping
from typing import Any

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

PROVIDERS: Mapping[str, Provider[Any]] = {each.name: each for each in (AtaraPay(), Qliro(), Sequra())}
CALLBACKS: Mapping[str, Callbacks] = {
    "atarapay": AtaraPayCallbacks(),
    "qliro": QliroCallbacks(),
    "sequra": SequraCallbacks(),
}
"""How each provider's callbacks are read."""
JOBS: Mapping[str, Jobs] = {"sequra": Jobs(SequraReports(), (SequraDisbursements(),))}
"""Jobs on a schedule, for the providers that have any."""
RECONCILERS: Mapping[str, Reconciler] = {
    "atarapay": AtaraPayReconciler(),
    "qliro": QliroReconciler(),
    "sequra": SequraReconciler(),
}
"""How orders are compared with the data of each provider."""
