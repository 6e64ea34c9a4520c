"""Operator events: `operator.*`, what a person does to an order or an account, written by `cartsync order …`, `cartsync
account …`, the private port and the console (`CONTRACT.md` section 7).

They count only with a valid MAC in their record's headers (`worker.core.trust`). Those about an order lie in its own
partition; those about an account, whose subject is its name, in every partition.
"""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from schemas.base import ACCOUNT_MAX, matching
from schemas.envelope import Data, Envelope

BY_MAX = 100
WHY_MAX = 500

By = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=BY_MAX,
        extra={"expected": f"a text of 1 to {BY_MAX} characters"},
        description="who did it",
    ),
]
Why = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=WHY_MAX,
        extra={"expected": f"a text of 1 to {WHY_MAX} characters"},
        description="why, in the operator's words",
    ),
]
AccountName = Annotated[
    str,
    matching(
        f"^[^/]{{1,{ACCOUNT_MAX}}}$",
        f"an account's name of 1 to {ACCOUNT_MAX} characters, without a slash",
        "the NAME in `[accounts.NAME]`",
    ),
]


class OperatorData(Data, kw_only=True, frozen=True):
    """The base of operator events' `data`."""

    by: By
    why: Why | UnsetType = UNSET


class ReleaseData(OperatorData, kw_only=True, frozen=True):
    """A parked order is to be tried again."""


class ResendData(OperatorData, kw_only=True, frozen=True):
    """The newest state is to be sent again."""


class ReasonedData(OperatorData, kw_only=True, frozen=True):
    """What nobody does without a reason."""

    why: Why


class NoteData(ReasonedData, kw_only=True, frozen=True):
    """A note: `why` is its text."""


class AdoptData(ReasonedData, kw_only=True, frozen=True):
    """What the provider has counts as sent."""


class ForgetData(ReasonedData, kw_only=True, frozen=True):
    """Personal details are to be erased."""


class PauseData(OperatorData, kw_only=True, frozen=True):
    """An account is to send nothing."""


class ResumeData(OperatorData, kw_only=True, frozen=True):
    """An account is to send again."""


class Release(Envelope, tag="operator.release", kw_only=True, frozen=True):
    """A parked order is tried again; its attempt counts start over."""

    data: ReleaseData


class Resend(Envelope, tag="operator.resend", kw_only=True, frozen=True):
    """The order's newest state is sent again, even if it was acknowledged."""

    data: ResendData


class Note(Envelope, tag="operator.note", kw_only=True, frozen=True):
    """A note on the order, shown with it. It changes nothing else."""

    data: NoteData


class Adopt(Envelope, tag="operator.adopt", kw_only=True, frozen=True):
    """What the provider has is as it should be: the order's newest state counts as acknowledged, and is not sent."""

    data: AdoptData


class Forget(Envelope, tag="operator.forget", kw_only=True, frozen=True):
    """The order's personal details are erased at once, which makes nothing owed; its record goes once nothing is."""

    data: ForgetData


class AccountEnvelope(Envelope, kw_only=True, frozen=True):
    """The attributes of an event about an account: its name is `subject` and record key."""

    subject: AccountName


class Pause(AccountEnvelope, tag="operator.pause", kw_only=True, frozen=True):
    """The account sends nothing until it is resumed: at all workers, also those that start later."""

    data: PauseData


class Resume(AccountEnvelope, tag="operator.resume", kw_only=True, frozen=True):
    """The account sends again, whoever or whatever paused it; every worker reads its secrets again first."""

    data: ResumeData


OperatorEvent = Release | Resend | Note | Adopt | Forget | Pause | Resume
