"""Records of the state topic.

Keys: `o:<subject>` an order, `m:next` how far the input was taken, `m:owner` the barrier, `m:targets` whom the accounts
told, `a:<account>` what operators did to an account, `j:<account>:<job>` what a job of an account has done,
`c:<day>.<number>` digests of orders that were closed
(`worker.core.retention`; not MessagePack). All other values are MessagePack arrays whose first member is the schema
number: members are only ever added at the end, with a default. A worker that meets a newer number refuses to start.
Times are UTC wall milliseconds.

An order's record is made and thrown away with every event: `gc=False` (nothing of it can ever refer back to itself)
saves 0.2 of the 12 µs that an event takes; to leave the facts sealed saves half of what it takes to read and write it.
"""

from enum import IntEnum
from typing import Any

from msgspec import Struct, ValidationError, defstruct, field, msgpack
from msgspec.structs import replace

from schemas.facts import (
    NIL,
    Confirmation,
    Facts,
    SealedFacts,
    Stamp,
    check_facts,
    digest_of_details,
    open_facts,
    seal_facts,
    strictly,
)
from schemas.views import Status

SCHEMA = 4
"""1: before returns from `any`, refunds of lines, and fees. 2: before what providers say, and observed orders. 3:
before facts were sealed.
"""

ORDER_PREFIX = "o:"
NEXT_KEY = b"m:next"
OWNER_KEY = b"m:owner"
TARGETS_KEY = b"m:targets"
JOB_PREFIX = "j:"
ACCOUNT_PREFIX = "a:"
CLOSED_PREFIX = "c:"

TOPIC_EPOCH_BITS = 44
"""revision = topic_epoch << 44 | (offset + 1): below 2^53 while the epoch is below 512."""


class Parking(Struct, array_like=True, frozen=True, gc=False):
    """Not sent until the payload's digest changes or an operator releases it."""

    reason: str
    digest: bytes
    revision: int
    """The newest revision that was found to have this payload; a newer one has to be looked at."""
    at_ms: int
    by_check: bool = False
    """By a check of ours before sending, which is made anew with every change; otherwise the provider refused it."""
    unsupported: bool = False
    """What is left cannot be told to the provider: what is heard of the order there may change that."""


class Attempts(Struct, array_like=True, frozen=True, gc=False):
    """Requests that were made for the payload with this digest."""

    digest: bytes = b""
    conflict: int = 0
    not_found: int = 0
    transient: int = 0


class Delay(IntEnum):
    """Whence the delay comes that `not_before_ms` is the end of; of a 404, `not_found_delay` says so."""

    OWN = 0
    """The provider has refused this very order for now; what became of others does not matter."""
    TRANSIENT = 1
    """Something was the matter that may be over for all orders at once."""
    ASKED = 2
    """`Retry-After`."""
    RESULT = 3
    """The provider works on what it was told: to be asked when no callback has come until then."""
    CHANGE = 4
    """A job tells it, or a change of the order makes it another matter: nobody looks at it before."""


class OrderHeader(Struct, array_like=True, gc=False):
    """What a restore needs of an order: the first members of `OrderRecord`."""

    schema: int = SCHEMA
    revision: int = 0
    acked: int = 0
    """The newest revision with a definite 2xx (or known to the provider otherwise)."""
    may_land_late: bool = False
    """Some request of an older revision may still land."""
    remote_unknown: bool = False
    """The provider may hold something else than `acked_digest`: nothing is suppressed as equal."""
    park: Parking | None = None
    not_before_ms: int = 0
    """No attempt before; 0: no delay."""
    owed_since_ms: int = 0
    """When the oldest change that is not acknowledged was taken; 0: none."""
    inconsistent_since_ms: int = 0
    """When its facts were found to contradict each other; 0: they do not."""
    unconfirmed_since_ms: int = 0
    """When its first event was taken while no confirmation is known; 0: confirmed."""


class OrderProgress(OrderHeader, array_like=True, gc=False):
    """What has been acknowledged for an order, and what stands in the way: all of `OrderRecord` but the facts."""

    acked_digest: bytes = b""
    """Of the payload that the provider holds; empty: only what was confirmed at checkout."""
    attempts: Attempts = Attempts()
    reason: str = ""
    """What stands in the way, for operators."""
    not_found_delay: bool = False
    """`not_before_ms` is the delay after a 404, which an approval ends."""
    echo: bool = False
    """Every change since `acked` was made at the provider itself: it is not told back."""
    event_ms: int = 0
    """`time` of the newest event taken."""
    trace: str | None = None
    """`traceparent` of the newest event that had one."""


class MadeAt(Struct, array_like=True, frozen=True, gc=False):
    """A revision that was acknowledged without a call, because the change was made at the provider itself."""

    provider: str
    revision: int


class ConfirmedAs(Struct, array_like=True, frozen=True, gc=False):
    """What the oldest confirmation alone gives, as versions up to schema 3 noted it before newer facts replaced details
    of it; since then `Confirmation.details_digest` tells.
    """

    provider: str
    """Whose adapter has computed the digest."""
    stamp: Stamp
    """Of the confirmation."""
    digest: bytes
    """Empty: it contradicts itself."""


class Told(Struct, array_like=True, frozen=True, gc=False):
    """What the results topic was told of an order last."""

    status: Status
    acked: int
    count: int
    """Results of the order so far."""
    rest: int = 0
    """A checksum of what else was told that would be news if it changed; 0: there was nothing."""


class Operated(Struct, array_like=True, frozen=True, gc=False):
    """What an operator did by an event."""

    command: str
    by: str
    why: str
    """Empty: nobody said, or it was erased."""
    at_ms: int
    """When it was taken, by our clock."""
    done: bool
    """There was something to do."""
    words: str
    """What came of it."""
    uid: bytes
    """Of the event."""


OPERATED_MAX = 5
"""Of an order or an account; older ones are in the results topic only."""


class Erased(Struct, array_like=True, frozen=True, gc=False):
    """That personal details of an order were erased: its record is removed once nothing is owed."""

    at_ms: int
    members: list[str]
    """Those of its details that were there."""
    before: bytes = b""
    """The digest of the payload with them; empty: there was none."""
    after: bytes = b""
    """… and without. Who was told the one counts as told the other, for nothing may become owed by it."""


EVENT_ID_MAX = 100
"""Characters of an event's id that are kept."""


class OrderRecord(OrderProgress, array_like=True, gc=False):
    """One order: its facts, and what has been acknowledged for it."""

    sealed: SealedFacts = field(default_factory=SealedFacts)
    key_digest: int = 0
    """CRC-32 of the record key that its newest event came under; 0: not known."""
    has_several_keys: bool = False
    """Its events came under different record keys: some may lie in other partitions."""
    made_at: MadeAt | None = None
    """The newest revision that was not sent because of where it was made."""
    generation: int = 0
    """How often an operator had it sent anew: a provider that knows the key of a request would not look at it."""
    delay: Delay = Delay.OWN
    event_id: str = ""
    """Of the event that made the newest revision, cut; empty: taken by a version that did not keep it."""
    confirmed_as: ConfirmedAs | None = None
    """`None`: the facts say it, or nobody can tell."""
    delay_ms: int = 0
    """How long the delay is that `not_before_ms` is the end of: by a clock that was wrong, that could be hours off."""
    remote: bytes = b""
    """What its adapter keeps of the order at the provider, encoded by the adapter; empty: nothing."""
    heard: int = 0
    """The newest revision that came of what was heard of the order at the provider: an older attempt did not see it."""
    told: Told | None = None
    """`None`: no result was written yet."""
    touched_day: int = 0
    """When the newest event was taken, by our clock, in days since 1970 UTC; 0: by a version that did not note it."""
    closed_day: int = 0
    """When its record had been removed before its first event; 0: as far as is known it was not."""
    operated: tuple[Operated, ...] = ()
    """The newest of what operators did, the oldest first."""
    erased: Erased | None = None
    """`None`: it was not."""
    entries: int = 0
    """How many entries of its history were written (`schemas.history`); 0: none, or by a version that wrote none."""
    to_tell: int = 0
    """The newest revision of which there may be something to tell: those after it came of what was heard of the order
    at the provider. 0: the newest one.
    """

    @property
    def is_only_heard_of(self) -> bool:
        """Whether there is nothing to tell the provider: it is owed to be asked about."""
        return 0 < self.to_tell <= self.acked

    @property
    def facts(self) -> Facts:
        """Its facts, opened: takes as long as all other work on an event. A change of what this returns changes nothing
        of the record. Raises `msgspec.MsgspecError`.
        """
        return open_facts(self.sealed)


class Deployment(Struct, array_like=True, frozen=True):
    """Whose a state topic is, and what it was made from. Empty members: not known."""

    cluster: str = ""
    """Kafka's own id of it."""
    event_topic: str = ""
    group: str = ""
    prefix: str = ""
    """`transactional_id_prefix`."""
    partitions: int = 0
    event_topic_id: str = ""
    """Another one, once the topic was deleted and made again."""
    state_topic_id: str = ""


class Taken(Struct, array_like=True, frozen=True):
    """What the last record of the input that was taken looked like: it is read again by the next owner."""

    offset: int
    timestamp_ms: int
    key_check: int
    """A checksum of the key."""


class Migration(Struct, array_like=True, frozen=True):
    """That the orders of this state are being copied, or were, to or from one with another number of partitions: no
    worker takes anything of it meanwhile.
    """

    is_source: bool
    """Its orders go to the other one, for good; otherwise it is being filled, and is not complete yet."""
    event_topic: str
    state_topic: str
    """Both of the other one, …"""
    partitions: int
    """… and how many it has."""
    topic_epoch: int
    """Of the new one."""


class NextRecord(Struct, array_like=True, frozen=True):
    """How far the input of the partition was taken."""

    schema: int
    offset: int
    """The next input offset."""
    topic_epoch: int
    clean: bool
    """The owner left in order: what it was not sure of is marked in the orders."""
    version: str
    """Of cartsync."""
    taken: Taken | None = None
    """`None`: no record was taken yet, or by a version that did not tell."""
    deployment: Deployment = Deployment()
    migration: Migration | None = None
    hold_ms: int = -1
    """With `clean`: how long after this was written requests that the owner was not sure of may still land; -1: by a
    version that did not tell.
    """


class OwnerRecord(Struct, array_like=True, frozen=True):
    """Written by a new owner first: who reads it back has seen everything before it."""

    schema: int
    owner: str
    at_ms: int
    version: str
    deployment: Deployment = Deployment()


class Target(Struct, array_like=True, frozen=True):
    """Whom an account tells: another one knows nothing of what this one was told."""

    provider: str
    base_url: str
    merchant: str

    def __str__(self) -> str:
        return f"{self.provider} merchant {self.merchant} at {self.base_url}"


class TargetsRecord(Struct, array_like=True, frozen=True):
    """Whom the accounts of a partition's orders told, by account."""

    schema: int
    targets: dict[str, Target]


class JobRecord(Struct, array_like=True, frozen=True):
    """What a job of an account has done in a partition."""

    schema: int
    done_ms: int
    """The instant at which its newest run was due; of one that never ran, when the account was first seen. UTC."""
    remote: bytes = b""
    """What the account's adapter keeps of it, encoded by the adapter; empty: nothing."""
    asked_ms: int = 0
    """When an operator asked for a run; one that began later, or was due then, is it. 0: nobody did."""
    in_doubt: bool = False
    """An owner that did not leave in order may have had of it in flight what is under way, and those after it did not
    have this job.
    """


class AccountRecord(Struct, array_like=True, frozen=True):
    """What operators did to an account, as far as the partition's log has it."""

    schema: int
    paused: Operated | None = None
    """By what the account is paused; `None`: no operator did that."""
    operated: tuple[Operated, ...] = ()
    """The newest, the oldest first."""
    seen: bytes = b""
    """The uids (8 bytes each) of the last events that were taken: one of them again changes nothing."""


_encoder = msgpack.Encoder()
_buffer = bytearray()
_order = strictly(msgpack.Decoder(OrderRecord).decode)
_unsealed = strictly(
    msgpack.Decoder(
        defstruct("UnsealedRecord", [("sealed", Facts, field(default_factory=Facts))], bases=(OrderRecord,))
    ).decode
)
_SEALED_SINCE = 4
_header = strictly(msgpack.Decoder(OrderHeader).decode)
_next = strictly(msgpack.Decoder(NextRecord).decode)
_owner = strictly(msgpack.Decoder(OwnerRecord).decode)
_targets = strictly(msgpack.Decoder(TargetsRecord).decode)
_job = strictly(msgpack.Decoder(JobRecord).decode)
_account = strictly(msgpack.Decoder(AccountRecord).decode)


def encode(record: OrderProgress | NextRecord | OwnerRecord | TargetsRecord | JobRecord | AccountRecord) -> bytes:
    """The record as it stands in the topic."""
    # Through one buffer that has grown already: 0.3 of 1.1 µs less than a new one that grows with the record. And what
    # is kept has the exact length, while the bytes of `Encoder.encode` have room to grow: 8 % of the orders' memory.
    _encoder.encode_into(record, _buffer)
    return bytes(_buffer)


def decode_order(value: bytes) -> OrderRecord:
    """An order's record, of any schema up to ours. Raises `msgspec.MsgspecError`."""
    try:
        return _order(value)
    except ValidationError:
        if decode_header(value).schema >= _SEALED_SINCE:
            raise
    return _seal(value)


def decode_whole(value: bytes) -> OrderRecord:
    """As `decode_order`; raises also when anything that is sealed or packed in it cannot be opened."""
    record = decode_order(value)
    check_facts(record.sealed)
    return record


def _seal(value: bytes) -> OrderRecord:
    """A record of a schema before facts were sealed, as one of ours."""
    old: Any = _unsealed(value)
    facts: Facts = old.sealed
    if facts.confirmation is not None and facts.confirmation.details:
        facts.confirmation = _without_replaced(facts.confirmation, facts)
    members = {name: getattr(old, name) for name in old.__struct_fields__}
    return OrderRecord(**members | {"schema": SCHEMA, "sealed": seal_facts(facts)})


def _without_replaced(confirmation: Confirmation, facts: Facts) -> Confirmation:
    """The oldest of the old versions kept the details that were replaced."""
    replaced = confirmation.details
    if NIL in replaced.values():
        digest = b""  # some are gone
    else:
        own = {name: packed for name, (stamp, packed) in facts.details.items() if stamp == confirmation.stamp}
        digest = digest_of_details(own | replaced)
    return replace(confirmation, details=dict.fromkeys(replaced, NIL), details_digest=digest)


def decode_header(value: bytes) -> OrderHeader:
    """The first members of an order's record; cheap."""
    return _header(value)


def decode_next(value: bytes) -> NextRecord:
    """The record of `m:next`."""
    return _next(value)


def decode_owner(value: bytes) -> OwnerRecord:
    """The record of `m:owner`."""
    return _owner(value)


def decode_targets(value: bytes) -> TargetsRecord:
    """The record of `m:targets`."""
    return _targets(value)


def decode_job(value: bytes) -> JobRecord:
    """The record of a job."""
    return _job(value)


def decode_account(value: bytes) -> AccountRecord:
    """The record of an account."""
    return _account(value)
