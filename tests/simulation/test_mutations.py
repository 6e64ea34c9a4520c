"""Each break of the protocol is noticed by the simulation: otherwise a rule would be there that nothing holds."""

import pytest

from tests.simulation import broken_money
from tests.simulation.breaks import broken
from tests.simulation.money import RULES
from tests.simulation.mutations import MUTATIONS, has_operators, providers_of
from tests.simulation.simulation import simulate
from tests.simulation.sound import sound
from tests.simulation.trace import ViolationError

SEEDS = {
    "no_hold_after_an_unknown_outcome": 1,
    "hold_counted_from_the_beginning_of_the_attempt": 1,
    "bad_gateway_taken_for_a_refusal": 2,
    "no_takeover_hold": 0,
    "takeover_hold_without_the_lease": 71,
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
    "probe_never_ends_a_pause": 198,
    "revision_is_a_counter": 0,
    "inherited_uncertainty_not_held": 2,
    "hold_not_told_to_the_successor": 2,
    "inherited_hold_not_passed_on": 9,
    "activation_keeps_the_clean_flag": 0,
    "cut_attempts_not_marked": 5,
    "inherited_flags_not_persisted": 9,
    "warm_state_trusted_without_reading": 0,
    "restore_stops_early": 2,
    "old_batch_into_a_new_actor": 231,
    "applied_before_it_is_committed": 0,
    "batch_ahead_counts_before_its_commit": 0,
    "batch_ahead_over_what_was_committed_before": 0,
    "batch_ahead_moves_the_position": 14,
    "failed_commit_taken_for_a_success": 0,
    "offset_in_a_transaction_of_its_own": 0,
    "restart_skips_a_record": 0,
    "restart_repeats_a_record": 1,
    "results_in_a_transaction_of_their_own": 0,
    "results_dropped": 0,
    "history_in_a_transaction_of_its_own": 0,
    "attempt_not_told_in_a_history": 0,
    "event_told_twice_in_a_history": 0,
    "what_was_told_not_kept": 0,
    "settled_before_it_is_known": 0,
    "poison_dropped": 0,
    "poison_dead_lettered_twice": 0,
    "operator_event_taken_twice": 0,
    "operator_event_not_remembered": 0,
    "operators_doing_not_told": 0,
    "pause_forgotten_by_a_restore": 0,
    "pause_not_obeyed": 0,
}
"""A seed that shows the mutation soon, as `python -m tests.simulation --mutations` found it."""
RULE_OF = {
    "command_without_a_look": ("look_before_command", 8),
    "second_command_while_one_is_pending": ("final_before_next", 17),
    "command_without_an_answer_taken_for_a_read": ("one_at_a_time", 5),
    "unknown_command_taken_for_a_read": ("one_at_a_time", 12),
    "unknown_read_taken_for_a_command": ("read_holds_nothing", 10),
    "remote_not_written_with_the_outcome": ("one_word", 18),
    "generation_raised_too_early": ("same_step_same_id", 1),
    "generation_not_raised_after_a_refusal": ("told_in_the_end", 30),
    "denied_request_sent_again": ("told_in_the_end", 13),
    "hint_in_flight_ignored": ("heard_is_looked_at", 43),
    "doubt_cleared_by_an_older_attempt": ("heard_is_looked_at", 1),
    "wait_not_ended_by_a_hint": ("told_in_the_end", 14),
    "capture_not_bounded_by_what_is_reserved": ("within_what_is_there", 4),
    "return_not_bounded_by_what_was_captured": ("within_what_is_there", 4),
    "units_captured_twice": ("no_unit_twice", 4),
    "captured_units_forgotten": ("settled_is_so", 16),
    "refund_told_twice": ("no_amount_twice", 15),
    "fee_charged_twice": ("no_amount_twice", 4),
    "word_repeated_without_asking": ("look_before_command", 13),
    "word_told_whatever_the_state": ("word_fits_state", 5),
    "second_word_without_a_second_attempt": ("one_word", 18),
}
"""Of the breaks of `money.RULES`: which rule a seed shows to be broken, and that seed, in a run with all providers."""
OTHERS = range(200)
"""Tried when the code has changed so much that the seed shows it no more; then it is time to search anew."""


def test_every_mutation_has_a_seed() -> None:
    """The tables speak of the same mutations, and of enough of them; every rule has one."""
    assert SEEDS.keys() == MUTATIONS.keys() - RULE_OF.keys()
    assert RULE_OF.keys() == broken_money.breaks.keys()
    assert {rule for rule, _ in RULE_OF.values()} == RULES.keys()
    assert len(MUTATIONS) >= 50


def is_noticed(name: str, number: int, rule: str) -> bool:
    """With the break in it, the run violates an invariant, that of the rule if one is given."""
    try:
        with broken(MUTATIONS[name]):
            simulate(number, providers=providers_of(name), operators=has_operators(name))
    except ViolationError as error:
        if "TypeError" in str(error).partition("\n")[0]:
            pytest.fail(f"{name} does not fit the code any more: {error}")
        return not rule or f" s: {rule}: " in str(error)
    return False


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_noticed(name: str) -> None:
    """With the break in it, a run violates an invariant; without, the same run is sound."""
    rule, seed = RULE_OF.get(name) or ("", SEEDS[name])
    for number in (seed, *OTHERS):
        if is_noticed(name, number, rule):
            sound(number, has_all=bool(rule), operators=has_operators(name))
            return
    pytest.fail(f"{name}: no run noticed it")
