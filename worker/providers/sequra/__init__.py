"""seQura: the Order Update API."""

from worker.providers.sequra.steps import Sequra

__all__ = ["Sequra"]
