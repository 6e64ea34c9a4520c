"""The lease: for how long an owner may begin attempts."""

from worker.core.policy import DeliveryPolicy


class Lease:
    """Each commit extends it by L, from the moment before the commit *began*: a successor's fence may come right after
    that moment, and counts from then on when our last request must have been given up.
    """

    def __init__(self, policy: DeliveryPolicy) -> None:
        self.until = 0.0
        """*now*."""
        self._policy = policy

    def renew(self, commit_began: float) -> None:
        """A commit that began then has succeeded."""
        self.until = commit_began + self._policy.lease_s

    def revoke(self) -> None:
        """No attempt begins under it any more."""
        self.until = 0.0

    def permits_attempt(self, now: float) -> bool:
        """Whether an attempt that begins now ends before the lease does."""
        return self._policy.permits_attempt(now, self.until)

    def is_short(self, now: float) -> bool:
        """Whether it is to be renewed already, so that sending does not have to stop for the commit."""
        return not self._policy.permits_attempt(now + self._policy.keep_alive_s, self.until)
