"""The rules of the ownership protocol, a switch each, and what is put to the test.

A rule is named as the code or the protocol speaks of it. Its text says what it demands, its reference where the design
has it: a step (1 to 21), an invariant (I1 to I11), or a section of the protocol. Switched off, a worker does what a
plausible simpler design would do; `test_model.py` holds the harm that comes of each.
"""

from dataclasses import dataclass, field, fields, replace


def rule(demand: str, reference: str) -> bool:
    """Declare a rule that is in force unless it is switched off."""
    declared: bool = field(default=True, metadata={"demand": demand, "reference": reference})
    return declared


@dataclass(frozen=True)
class Rules:
    """All rules of the protocol that the model knows."""

    # Taking over
    fence: bool = rule("A new owner fences first: after that no older owner can commit.", "step 3, I2")
    read_to_barrier: bool = rule("A restore ends where the own barrier was read back, not earlier.", "step 5, I3")
    hold_inherited: bool = rule("What was owed at an unclean takeover is held for H.", "step 6, I7")
    hold_covers_lease: bool = rule(
        "H is L + G: the old owner may send until its lease ends, not until the fence.", "section 3"
    )
    doubt_inherited: bool = rule("What was owed at an unclean takeover is in doubt: never taken for equal.", "step 6")
    hold_uncertain: bool = rule("What is marked uncertain is held also after a clean takeover.", "step 6")
    activation_unclean: bool = rule("The activation takes the clean flag away before anything is sent.", "step 7")
    reread_after_loss: bool = rule("After a commit that raised, the log says what is so, not the memory.", "step 13")
    one_incarnation: bool = rule("A batch that was fetched for an earlier owner is dropped.", "step 10")
    warm_expires: bool = rule("A remembered partition is forgotten before a tombstone can be.", "sections 2 and 4")

    # Processing
    one_transaction: bool = rule("Records and next offset are one transaction.", "step 12, I4")
    apply_after_commit: bool = rule("Memory changes only when the commit has returned.", "step 12, I1")
    facts_are_a_set: bool = rule("An event seen before changes nothing.", "step 11, I4")
    revision_from_offset: bool = rule(
        "A revision is made of the offset, not counted: it never restarts.", "section 2, I9"
    )
    decision_rechecked: bool = rule(
        "A decision made before a commit is dropped when the order has come into doubt since.", "section 2, step 14"
    )

    # Sending
    lease_check: bool = rule("Nothing is sent without a lease.", "step 14 and 15, I6")
    lease_from_commits: bool = rule("Only a commit extends the lease; being assigned does not.", "section 3")
    lease_from_commit_start: bool = rule(
        "A lease counts from before the commit call, not from its return.", "section 3"
    )
    attempt_within_lease: bool = rule(
        "An attempt is given up before the lease ends: now + D, not now.", "section 3, I6"
    )
    one_attempt: bool = rule("One attempt in flight per order.", "I5")
    newest_only: bool = rule("What is sent is the order as of now, never a revision queued before.", "step 14")
    suppress_without_doubt: bool = rule("An equal payload is left out only when there is no doubt.", "section 2")

    # Outcomes
    ack_own_revision: bool = rule("An answer acknowledges the revision that was sent, not the newest.", "step 17")
    hold_unknown: bool = rule("After an unknown outcome the order is held for G.", "ack table, I5")
    uncertain_unknown: bool = rule("An unknown outcome is marked in the record, for the next owner.", "ack table")
    doubt_after_5xx: bool = rule("A 5xx puts the order in doubt: it may have been applied.", "section 2")
    park_by_revision: bool = rule("A parked order is looked at again when its revision grew.", "section 2, ack table")

    # Closing
    close_settled: bool = rule("Only what is settled is closed: what is owed stays.", "section 8")

    # Leaving
    lease_cut_on_leave: bool = rule("Who leaves sends no more.", "step 18")
    leave_drains: bool = rule("Who leaves waits for its attempts or marks them uncertain.", "step 19")
    flags_before_clean: bool = rule(
        "The clean flag is written with all inherited marks, never before.", "step 6 and 20"
    )

    def without(self, *names: str) -> "Rules":
        """Return these rules with some switched off. Raises `TypeError` for an unknown name."""
        return replace(self, **dict.fromkeys(names, False))


RULES = {each.name: (str(each.metadata["demand"]), str(each.metadata["reference"])) for each in fields(Rules)}
"""What each rule demands, and where the design has it."""


@dataclass(frozen=True)
class Setup:
    """What is explored: the input, the provider, the faults there may be."""

    events: str = "a1 a2=0"
    """The input partition. `a2=0`: event 2 of order a brings back the payload of event 0, the one known at checkout.
    An event that stands twice is a duplicate."""
    faults: int = 2
    """How many faults in all, of any kind and at any moment."""
    conditional_provider: bool = False
    """The provider refuses a revision older than the one that it has."""
    freeze_in_send_gap: bool = False
    """A process may freeze between its last look at the lease and the write to the socket."""
    expiry: bool = False
    """Settled orders may be removed by a tombstone."""
    operator: bool = False
    """An operator may have orders sent again (`resend`); decisions are made and committed in two steps."""
    warm: bool = False
    """A process remembers a partition that it lost, and restores from there."""

    @property
    def orders(self) -> str:
        """The orders, a letter each."""
        return "".join(dict.fromkeys(event[0] for event in self.events.split()))
