"""Every adapter, by the name that an account gives as its `provider`."""

from collections.abc import Mapping
from typing import Any

from worker.model.provider import Provider
from worker.providers.qliro import Qliro
from worker.providers.sequra import Sequra

PROVIDERS: Mapping[str, Provider[Any]] = {each.name: each for each in (Sequra(), Qliro())}
