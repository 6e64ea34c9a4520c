"""AtaraPay: escrow; one word at most, and Order Status."""

from worker.providers.atarapay.steps import AtaraPay

__all__ = ["AtaraPay"]
