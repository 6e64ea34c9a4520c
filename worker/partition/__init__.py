"""One actor per assigned partition: the only writer of its orders.

Theory of operation. A partition of the event topic and the partition of the state topic with the same number belong
together, and to one actor at a time. The actor holds the encoded records of all its orders in memory, takes events
and outcomes from its mailbox, and writes what changed in one transaction, the next input offset among it: so state
and offset cannot disagree. Only what is committed is shown, sent or forgotten.

    assign    fence (older owners can commit no more) -> barrier (a record of our own) -> restore until the barrier is
              read back -> inherit (orders that an unclean predecessor may have under way are held) -> activate
    process   mailbox -> events, outcomes, commands -> one transaction -> apply -> look at what is owed
    publish   an order is offered when it is due, taken when a lane is free: the newest revision, lease permitting
    revoke    no new sends -> attempts under way end or are given up and marked -> last transaction, `clean` in it

A *lease* lets an actor send: each commit extends it by L from the moment the commit began, and no attempt starts that
could outlast it. A successor can commit only after its fence, so it knows when the last request of its predecessor
must have been given up (L) and must have landed (G), and holds what was owed until then (H = L + G). Nothing here
trusts the group protocol: it only decides who tries. `PROTOCOL.md` has the proof and the failure matrix.
"""
