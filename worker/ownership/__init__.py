"""A keyed, fenced partition: who owns it, and for how long. What it is owned for is its `Workload`.

Theory of operation. A partition of the event topic and the partition of the state topic with the same number belong
together, and to one owner at a time. The owner takes events from its mailbox, has its workload make of them what it
makes, and writes what changed in one transaction, the next input offset among it: so state and offset cannot disagree.
Only what is committed is shown, sent or forgotten.

    assign    fence (older owners can commit no more) -> barrier (a record of our own) -> restore until the barrier is
              read back -> inherit (what an unclean predecessor may have in flight is held) -> activate
    process   mailbox -> events, outcomes, commands -> one transaction -> apply -> work on what is due
    revoke    no new attempts -> those in flight end, or are abandoned and marked -> last transaction, `clean` in it

A *lease* lets an owner's attempts begin: each commit extends it by L from the moment the commit began, and no attempt
begins that could outlast it. A successor can commit only after its fence, so it knows when the last request of its
predecessor must have been given up (L) and must have landed (G), and holds what was owed until then (H = L + G).
Nothing here trusts the group protocol: it only decides who tries. `PROTOCOL.md` has the proof and the failure matrix.

    phase       the phases of an ownership, their transitions and a diagram
    assignment  one owner for each partition that the group gives us; feeds them; again, when one is lost
    owner       acquires, serves and drains one partition; `restore`, `position` and `lease` are parts of it
    workload    what the owner needs of the work, and the work of the owner
"""
