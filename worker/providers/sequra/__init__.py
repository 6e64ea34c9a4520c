"""seQura: the Order Update API."""

from worker.providers.sequra.updates import Sequra

__all__ = ["Sequra"]
