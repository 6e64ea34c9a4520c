"""The rules that stand in the way of charging, or paying back, twice: a sentence each.

Each is checked after every step of a run with all providers, and has a mutation that it alone catches (`RULE_OF` in
`test_mutations.py`), as the rules of owning a partition have.
"""

RULES = {
    "one_at_a_time": "no request about an order goes out while a command about it may still land",
    "look_before_command": "a process commands only what it has looked at since the last command about the order",
    "final_before_next": "no command while a transaction of its order is not final",
    "same_step_same_id": "while nobody knows what became of a command, the same step has the same RequestId",
    "within_what_is_there": "nothing is captured beyond what is reserved, nor returned beyond what is captured",
    "no_unit_twice": "no more units are captured than ever left the shop",
    "no_amount_twice": "no refund and no fee is told as more than it is",
    "settled_is_so": "an order counts as told only once its provider holds what its facts come to",
    "heard_is_looked_at": "what was heard of an order does not count as told before somebody has looked",
    "word_fits_state": "no word to AtaraPay that its state, as it was read, does not take",
    "one_word": "one word to AtaraPay, and one more for a second attempt with a newer delivery",
    "read_holds_nothing": "a read that has failed leaves nothing to wait for",
    "told_in_the_end": "once nothing goes wrong any more, each order is told in time, or it is said why it cannot be",
}
