"""AtaraPay: escrow; at most one status, and Order Status."""

from worker.providers.atarapay.steps import AtaraPay

__all__ = ["AtaraPay"]
