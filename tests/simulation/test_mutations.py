"""Each break of the protocol is noticed by the simulation: otherwise a rule would be there that nothing holds."""

from functools import cache

import pytest

from tests.simulation.breaks import broken
from tests.simulation.mutations import MUTATIONS
from tests.simulation.simulation import simulate
from tests.simulation.trace import ViolationError

SEEDS = {
    "no_hold_after_an_unknown_outcome": 1,
    "hold_counted_from_the_beginning_of_the_attempt": 1,
    "bad_gateway_taken_for_a_refusal": 2,
    "no_takeover_hold": 0,
    "takeover_hold_without_the_lease": 20,
    "no_lease_check": 7,
    "attempt_outlasts_the_lease": 0,
    "lease_counted_from_the_end_of_the_commit": 0,
    "leaves_without_waiting_for_attempts": 0,
    "lease_not_cut_when_the_partition_is_lost": 0,
    "equal_payload_suppressed_while_in_doubt": 6,
    "server_error_leaves_no_doubt": 63,
    "two_attempts_in_flight": 0,
    "old_payload_retried": 1,
    "newest_revision_acknowledged": 0,
    "outcome_of_another_order": 0,
    "parked_order_not_looked_at_again": 32,
    "delay_lost": 18,
    "probe_never_ends_a_pause": 114,
    "revision_is_a_counter": 0,
    "inherited_uncertainty_not_held": 0,
    "activation_keeps_the_clean_flag": 0,
    "cut_attempts_not_marked": 5,
    "inherited_flags_not_persisted": 9,
    "warm_state_trusted_without_reading": 0,
    "restore_stops_early": 1,
    "old_batch_into_a_new_actor": 268,
    "applied_before_it_is_committed": 0,
    "failed_commit_taken_for_a_success": 0,
    "offset_in_a_transaction_of_its_own": 0,
    "restart_skips_a_record": 0,
    "restart_repeats_a_record": 1,
    "results_in_a_transaction_of_their_own": 0,
    "results_dropped": 0,
    "what_was_told_not_kept": 0,
    "settled_before_it_is_known": 0,
    "poison_dropped": 0,
    "poison_dead_lettered_twice": 0,
}
"""A seed that shows the mutation soon, as `python -m tests.simulation --mutations` found it."""
OTHERS = range(200)
"""Tried when the code has changed so much that the seed shows it no more; then it is time to search anew."""


@cache
def sound(number: int) -> None:
    """Without a break nothing is wrong."""
    simulate(number)


def test_every_mutation_has_a_seed() -> None:
    """The two tables speak of the same mutations, and of enough of them."""
    assert SEEDS.keys() == MUTATIONS.keys()
    assert len(MUTATIONS) >= 30


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_noticed(name: str) -> None:
    """With the break in it, a run violates an invariant; without, the same run is sound."""
    for number in (SEEDS[name], *OTHERS):
        try:
            with broken(MUTATIONS[name]):
                simulate(number)
        except ViolationError as error:
            if "TypeError" in str(error).partition("\n")[0]:
                pytest.fail(f"{name} does not fit the code any more: {error}")
            sound(number)
            return
    pytest.fail(f"{name}: no run noticed it")
