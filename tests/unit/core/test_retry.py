"""What follows from each outcome: acknowledged, again and when, held, or parked (`DOMAIN.md` section 6)."""

from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.state import Attempts, Delay, OrderRecord, Parking
from worker.core.policy import DeliveryPolicy
from worker.core.record import settle
from worker.core.retry import awaits_change, awaits_result, backoff_s, delay_max_s, hold_s, is_transient
from worker.model.exchange import Outcome, OutcomeKind

RULES = DeliveryPolicy()
NOW_MS = 1_000_000
DIGEST, OTHER = b"d" * 16, b"o" * 16
KINDS = list(OutcomeKind)


def owed(**members: object) -> OrderRecord:
    """A record at revision 5 of which 3 is acknowledged."""
    record = OrderRecord(revision=5, acked=3, acked_digest=b"a" * 16, owed_since_ms=900_000)
    for name, value in members.items():
        setattr(record, name, value)
    return record


def after(record: OrderRecord, outcome: Outcome, *, digest: bytes = DIGEST, chance: float = 0.5) -> OrderRecord:
    """The record after an attempt at revision 5; there must be no hold."""
    found, hold_s = settle(record, 5, digest, outcome, now_ms=NOW_MS, chance=chance, rules=RULES)
    assert hold_s == 0.0
    return found


def delay_s(record: OrderRecord) -> float:
    """For how long from now nothing is sent."""
    return (record.not_before_ms - NOW_MS) / 1000


# --- applied -------------------------------------------------------------------------------------------------------


def test_applied_is_acknowledged() -> None:
    """A 2xx acknowledges the revision with its digest and ends every remote_unknown, count and parking."""
    before = owed(
        may_land_late=True,
        remote_unknown=True,
        park=Parking("old", OTHER, 4, 1),
        attempts=Attempts(DIGEST, 1, 2, 3),
        reason="old",
        not_before_ms=5,
        not_found_delay=True,
    )
    found = after(before, Outcome(OutcomeKind.APPLIED, "", 204))
    assert (found.acked, found.acked_digest) == (5, DIGEST)
    assert (found.may_land_late, found.remote_unknown, found.park, found.attempts) == (False, False, None, Attempts())
    assert (found.reason, found.not_before_ms, found.not_found_delay, found.owed_since_ms) == ("", 0, False, 0)


def test_applied_of_an_overtaken_revision_leaves_the_newest_owed() -> None:
    """When facts changed meanwhile, the order stays owed, from now on."""
    found = after(owed(revision=9), Outcome(OutcomeKind.APPLIED))
    assert (found.revision, found.acked, found.owed_since_ms) == (9, 5, NOW_MS)


def test_acknowledged_never_goes_back() -> None:
    """An answer to an old revision does not take back what a newer one acknowledged."""
    assert after(owed(acked=7, revision=7), Outcome(OutcomeKind.APPLIED)).acked == 7


# --- conflict ------------------------------------------------------------------------------------------------------

CONFLICT = Outcome(OutcomeKind.CONFLICT, "409: totals do not add up", 409)


def test_conflict_is_tried_four_times_with_growing_delay() -> None:
    """Four requests in all per payload, then parked with the provider's words."""
    record = owed()
    delays = []
    for count in range(1, 4):
        record = after(record, CONFLICT, chance=1.0)
        assert (record.attempts.digest, record.attempts.conflict, record.park) == (DIGEST, count, None)
        assert record.reason == "409: totals do not add up"
        delays.append(delay_s(record))
    assert delays == pytest.approx([0.401, 0.801, 1.601])
    record = after(record, CONFLICT)
    assert record.park == Parking("409: totals do not add up", DIGEST, 5, NOW_MS)
    assert record.not_before_ms == 0


def test_counts_start_anew_with_another_payload() -> None:
    """Counts belong to a payload: another digest has its own."""
    record = owed(attempts=Attempts(OTHER, conflict=3, not_found=4, transient=9))
    found = after(record, CONFLICT)
    assert (found.attempts, found.park) == (Attempts(DIGEST, conflict=1), None)


def test_counts_of_a_conflict_and_of_a_404_are_apart() -> None:
    """Three conflicts and four times not found are no reason to park yet."""
    record = owed(attempts=Attempts(DIGEST, conflict=2, not_found=3))
    assert after(record, CONFLICT).attempts == Attempts(DIGEST, conflict=3, not_found=3)


# --- not found -----------------------------------------------------------------------------------------------------

NOT_FOUND = Outcome(OutcomeKind.NOT_FOUND, "404", 404)


def test_not_found_is_tried_five_times() -> None:
    """Five requests, 30 s, 5 min, 30 min and 3 h apart; then parked."""
    record = owed()
    delays = []
    for _ in range(4):
        record = after(record, NOT_FOUND)
        assert record.not_found_delay
        delays.append(delay_s(record))
    assert delays == pytest.approx([30.001, 300.001, 1800.001, 10800.001])
    record = after(record, NOT_FOUND)
    assert record.park == Parking("404", DIGEST, 5, NOW_MS)
    assert (record.not_before_ms, record.not_found_delay) == (0, False)


def test_last_delay_serves_for_more_requests() -> None:
    """With more requests than delays, the last delay is repeated."""
    rules = DeliveryPolicy(not_found_attempts=9, not_found_delays_s=(1.0, 2.0))
    record = owed(attempts=Attempts(DIGEST, not_found=5))
    found, _ = settle(record, 5, DIGEST, NOT_FOUND, now_ms=NOW_MS, chance=0.0, rules=rules)
    assert delay_s(found) == pytest.approx(2.001)


# --- rejected for now, and not sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "remote_unknown"),
    [
        (Outcome(OutcomeKind.REJECTED, "503", 503, may_have_applied=True), True),
        (Outcome(OutcomeKind.REJECTED, "429", 429), False),
        (Outcome(OutcomeKind.REJECTED, "423", 423), False),
        (Outcome(OutcomeKind.NOT_SENT, "refused"), False),
        (Outcome(OutcomeKind.FORBIDDEN, "403", 403), False),
    ],
)
def test_transient_failure_is_retried(outcome: Outcome, remote_unknown: bool) -> None:
    """Counted and delayed, never parked; one that failed at the provider leaves it unknown what the provider holds."""
    record = owed()
    for count in range(1, 60):
        record = after(record, outcome, chance=0.0)
        assert (record.attempts.transient, record.park, record.may_land_late) == (count, None, False)
    assert record.remote_unknown is remote_unknown
    assert record.reason == outcome.reason
    assert delay_s(record) == pytest.approx(0.201)


def test_doubt_outlives_a_failure_that_gives_none() -> None:
    """A connection that is refused says nothing about what an earlier 503 has done."""
    assert after(owed(remote_unknown=True), Outcome(OutcomeKind.NOT_SENT)).remote_unknown


@pytest.mark.parametrize("wait_s", [0.0, 0.1, 30.0, 3600.0])
def test_retry_after_is_a_lower_bound(wait_s: float) -> None:
    """Never before `Retry-After`, and not sooner than without it."""
    found = after(owed(), Outcome(OutcomeKind.REJECTED, "", 503, wait_s, True), chance=0.0)
    assert delay_s(found) == pytest.approx(max(wait_s, 0.2) + 0.001)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(OutcomeKind.REJECTED, "", 503), True),
        (Outcome(OutcomeKind.REJECTED, "", 503, 0.0), True),
        (Outcome(OutcomeKind.NOT_SENT), True),
        (Outcome(OutcomeKind.UNKNOWN), True),
        (Outcome(OutcomeKind.REJECTED, "", 503, 30.0), False),
        (Outcome(OutcomeKind.UNKNOWN, "", 504, 30.0), False),
        (Outcome(OutcomeKind.FORBIDDEN, "", 403), False),
        (Outcome(OutcomeKind.CONFLICT, "", 409), False),
        (Outcome(OutcomeKind.NOT_FOUND, "", 404), False),
    ],
)
def test_delays_that_may_be_over_for_all_orders_at_once(outcome: Outcome, expected: bool) -> None:
    """Not `Retry-After`, and not what the provider said of this very order."""
    found, _ = settle(owed(), 5, DIGEST, outcome, now_ms=NOW_MS, chance=0.5, rules=RULES)
    assert found.not_before_ms > NOW_MS
    assert is_transient(found) is expected


@pytest.mark.parametrize(
    ("members", "longest"),
    [
        ({}, 300.0),
        ({"delay": Delay.TRANSIENT}, 300.0),
        ({"delay": Delay.TRANSIENT, "may_land_late": True}, 330.0),
        ({"delay": Delay.ASKED}, 3600.0),
        ({"not_found_delay": True}, 10_800.0),
    ],
)
def test_longest_delay_is_that_of_its_kind(members: dict[str, object], longest: float) -> None:
    """A clock that was an hour ahead when a backoff was stored does not make it an hour long."""
    assert delay_max_s(owed(not_before_ms=NOW_MS + 10**9, **members), RULES) == longest


def test_longest_retry_may_exceed_the_longest_retry_after() -> None:
    """When the settings say so."""
    assert delay_max_s(owed(delay=Delay.ASKED), DeliveryPolicy(retry_max_s=50_000.0)) == 50_000.0


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_full_jitter_below_a_doubling_cap(count: int, chance: float) -> None:
    """Between `retry_initial` and a cap that doubles up to `retry_max`, whatever the count."""
    delay = backoff_s(count, chance, RULES)
    cap = min(300.0, 0.2 * 2 ** min(count, 40))
    assert 0.2 <= delay <= cap
    assert backoff_s(count, 0.0, RULES) == 0.2
    assert backoff_s(count, 1.0, RULES) == pytest.approx(cap)


# --- unknown -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome(OutcomeKind.UNKNOWN, "timeout"), Outcome(OutcomeKind.UNKNOWN, "502", 502)])
def test_unknown_outcome_holds_the_order(outcome: Outcome) -> None:
    """The request may still land: may_land_late, in remote_unknown, held for `settle`; then it backs off as a refused one does."""
    found, hold_s = settle(owed(), 5, DIGEST, outcome, now_ms=NOW_MS, chance=0.5, rules=RULES)
    assert hold_s == RULES.settle_s
    assert (found.may_land_late, found.remote_unknown, found.park) == (True, True, None)
    assert (found.attempts.transient, found.reason) == (1, outcome.reason)
    assert delay_s(found) == pytest.approx(30.0 + 0.3 + 0.001)
    for _ in range(15):
        found, _ = settle(found, 5, DIGEST, outcome, now_ms=NOW_MS, chance=1.0, rules=RULES)
    assert delay_s(found) == pytest.approx(330.001)


def test_unknown_outcome_with_retry_after() -> None:
    """`Retry-After` of such an answer is kept, beside the hold."""
    outcome = Outcome(OutcomeKind.UNKNOWN, "504", 504, 120.0)
    found, hold_s = settle(owed(), 5, DIGEST, outcome, now_ms=NOW_MS, chance=0.5, rules=RULES)
    assert hold_s == 30.0
    assert delay_s(found) == pytest.approx(120.001)


def test_uncertainty_ends_with_a_definite_answer_only() -> None:
    """An answer that applied nothing leaves may_land_late what an earlier request may have done."""
    for outcome in (Outcome(OutcomeKind.REJECTED, "429", 429), Outcome(OutcomeKind.NOT_SENT), CONFLICT):
        assert after(owed(may_land_late=True, remote_unknown=True), outcome).may_land_late
    assert not after(owed(may_land_late=True, remote_unknown=True), Outcome(OutcomeKind.APPLIED)).may_land_late


@pytest.mark.parametrize("may_have_applied", [False, True])
@pytest.mark.parametrize("kind", OutcomeKind)
def test_no_hold_is_longer_than_the_longest(kind: OutcomeKind, may_have_applied: bool) -> None:
    """Nor is it longer than a successor waits that has to assume any outcome."""
    held_s = hold_s(Outcome(kind, "why", 500, may_have_applied=may_have_applied), RULES)
    assert 0.0 <= held_s <= RULES.hold_max_s < RULES.takeover_hold_s


# --- permanent, and credentials --------------------------------------------------------------------------------------


def test_permanent_refusal_is_parked_after_one_request() -> None:
    """Parked with status and reason, at this revision and digest."""
    found = after(owed(), Outcome(OutcomeKind.PERMANENT, "422: no", 422))
    assert found.park == Parking("422: no", DIGEST, 5, NOW_MS)
    assert (found.reason, found.acked) == ("422: no", 3)


def test_credentials_leave_the_order_as_it_is() -> None:
    """The account pauses; the order is neither parked, nor delayed, nor counted."""
    found = after(owed(), Outcome(OutcomeKind.CREDENTIALS, "401", 401))
    assert (found.park, found.not_before_ms, found.attempts) == (None, 0, Attempts(DIGEST))
    assert (found.revision, found.acked, found.reason) == (5, 3, "401")


# --- of all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_settle_leaves_its_argument_alone(kind: OutcomeKind) -> None:
    """A record is a value: what comes back is another one."""
    before = owed(attempts=Attempts(DIGEST, 1, 1, 1), not_before_ms=7, not_found_delay=True)
    kept = copy(before)
    found, _ = settle(before, 5, DIGEST, Outcome(kind, "why", 500), now_ms=NOW_MS, chance=0.5, rules=RULES)
    assert before == kept
    assert found is not before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != OutcomeKind.APPLIED])
def test_only_applied_acknowledges(kind: OutcomeKind) -> None:
    """Unclear is never success."""
    found, _ = settle(owed(), 5, DIGEST, Outcome(kind, "", 500), now_ms=NOW_MS, chance=0.5, rules=RULES)
    assert (found.acked, found.acked_digest, found.owed_since_ms) == (3, b"a" * 16, 900_000)


@given(
    st.sampled_from(KINDS),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(0, 3600),
    st.integers(0, 100),
)
def test_delays_are_bounded(kind: OutcomeKind, chance: float, wait_s: float | None, count: int) -> None:
    """No delay in a record is longer than the longest that the rules know for its kind."""
    record = owed(attempts=Attempts(DIGEST, count % 3, count % 4, count))
    found, hold_s = settle(record, 5, DIGEST, Outcome(kind, "", 503, wait_s), now_ms=NOW_MS, chance=chance, rules=RULES)
    assert hold_s == (RULES.settle_s if kind is OutcomeKind.UNKNOWN else 0.0)
    assert delay_s(found) <= delay_max_s(found, RULES) + 0.001


# --- what the provider works on, and what it cannot be told ----------------------------------------------------------


def test_pending_waits_for_the_result() -> None:
    """It is asked when its time has come; nothing has failed, and what was in remote_unknown was read."""
    before = owed(may_land_late=True, remote_unknown=False, attempts=Attempts(DIGEST, 1, 2, 3), remote=b"old")
    found = after(before, Outcome(OutcomeKind.PENDING, "a capture", 200, 60.0, remote=b"new"))
    assert delay_s(found) == pytest.approx(60.0, abs=0.01)
    assert (found.delay, found.acked) == (Delay.RESULT, 3)
    assert (found.may_land_late, found.remote_unknown, found.attempts, found.remote) == (
        False,
        True,
        Attempts(),
        b"new",
    )
    assert awaits_result(found)
    assert not is_transient(found)
    assert delay_max_s(found, RULES) == pytest.approx(60.0, abs=0.01)


def test_pending_until_a_change() -> None:
    """Nobody asks about it: it waits for good, until it changes or a job has told it."""
    found = after(owed(), Outcome(OutcomeKind.PENDING, "waits for its report"))
    assert delay_s(found) > 365 * 86_400
    assert (found.delay, found.reason) == (Delay.CHANGE, "waits for its report")
    assert awaits_change(found)
    assert awaits_result(found)


def test_a_change_while_it_was_looked_at() -> None:
    """It may be another matter now."""
    found = after(owed(revision=6), Outcome(OutcomeKind.PENDING, "waits for its report"))
    assert (found.not_before_ms, found.delay) == (0, Delay.OWN)
    assert not awaits_change(found)


def test_unsupported_is_parked() -> None:
    """Until its payload changes, an operator releases it, or something is heard of it there."""
    found = after(owed(may_land_late=True), Outcome(OutcomeKind.UNSUPPORTED, "unsupported: a part return", 200))
    assert found.park == Parking("unsupported: a part return", DIGEST, 5, NOW_MS, unsupported=True)
    assert (found.reason, found.may_land_late, found.remote_unknown) == ("unsupported: a part return", False, True)


@pytest.mark.parametrize("kind", [OutcomeKind.PENDING, OutcomeKind.UNSUPPORTED])
def test_what_was_heard_meanwhile_is_looked_at(kind: OutcomeKind) -> None:
    """An attempt of an older revision did not see it: the order neither waits nor is parked."""
    found = after(owed(revision=6, heard=6), Outcome(kind, "why", 200, 60.0))
    assert (found.not_before_ms, found.park, found.remote_unknown) == (0, None, True)
    assert not awaits_result(found)


@pytest.mark.parametrize(("heard", "remote_unknown"), [(6, True), (5, False)])
def test_applied_knows_only_what_it_saw(heard: int, remote_unknown: bool) -> None:
    """What was heard of the order since the attempt began is still to be asked about."""
    assert after(owed(revision=6, heard=heard), Outcome(OutcomeKind.APPLIED, "", 200)).remote_unknown is remote_unknown


def test_remote_is_kept_unless_there_is_news() -> None:
    """An outcome without news of the provider leaves what its adapter knew."""
    assert after(owed(remote=b"old"), Outcome(OutcomeKind.REJECTED, "busy", 500)).remote == b"old"


@pytest.mark.parametrize(("status", "may_land_late"), [(200, False), (None, True)])
def test_only_who_was_asked_knows_what_became_of_it(status: int | None, may_land_late: bool) -> None:
    """A turn without a request leaves open whether an earlier command has arrived."""
    found = after(owed(may_land_late=True), Outcome(OutcomeKind.PENDING, "why", status, 60.0))
    assert found.may_land_late is may_land_late
