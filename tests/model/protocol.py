"""The ownership protocol as a state machine: what may happen next, in every state.

Theory of operation. One partition of the input, its partition of the state topic, two workers that the consumer group
may make its owner at any moment, one provider. A state holds all of these; `Protocol.steps` gives every step that any
of them may take next, each with the state after it. The search takes them all, so it sees every interleaving. A worker
that is not scheduled is a worker that is frozen: freezing needs no step of its own, but for one place (below).

A step is *free* (it happens sooner or later), *optional* (it may never happen: an operator, a sweep, compaction) or a
*fault*, of which a search allows so many. A state without free steps is *quiet*: the provider must then hold the newest
payload of every order, and the state topic the newest facts.

Transactions. A commit is one step: what others do between its begin and its return, they may as well do before or
after. A commit that raised is the commit (visible) or none (not visible), and then a loss: the actor closes. One item
per transaction: a batch is several with nothing in between. An outcome that waits to be committed is a request that
has not been answered yet; leaving only forbids things until its last transaction, so it is that one step.

The state topic is kept as the last record of each key: what a reader that reads to its own barrier finds, whatever
compaction has or has not removed by then. (A record that a successor has overwritten may be missing for the reader
before it; but that reader is fenced, and never activates.) Tombstones are the exception: they can be seen to go.

Time. No clock; but the order that times enforce, on the assumption that L, D, G and H are right:
* A lease counts from a commit, and only the owner of the newest epoch commits. So the lease of a fenced owner *ends* at
  some moment, maybe long after the fence, and never starts again. (Of an owner that is not fenced a lease may end too,
  until its next commit; then it sends nothing meanwhile, which not being scheduled covers.)
* An attempt starts only if it is given up before the lease ends: it is *covered*. When a lease ends, or a process does,
  its attempts are given up (those of a dead process by its kernel).
* A request that was given up may still *land*, or *vanish*, until it is settled (G): a hold of G ends when none of the
  owner's own requests for the order that it gave up is under way any more.
* H = L + G from the fence: a takeover's holds end when the leases of all older owners have ended and no request that
  they covered is under way. What no lease covers is not waited for: nothing says when it lands.
Holds end by themselves as soon as they may (`canonical.py`): nobody has to send then, so this hides nothing.

A freeze between the last look at the lease and the write to the socket is the one place where being frozen is a step:
the request exists, is not under way, and goes out when the process thaws, whether or not a lease still covers it.
"""

from tests.model.canonical import canonical
from tests.model.machine import Machine, exchange, written
from tests.model.orders import BACKWARDS
from tests.model.rules import Rules, Setup
from tests.model.states import (
    ANSWERED,
    BELIEVED,
    FAULT,
    FENCED,
    FREE,
    GIVEN_UP,
    GONE,
    HOLD_G,
    HOLD_H,
    IN_GAP,
    LEFT,
    NO_HOLD,
    NOBODY,
    OPTIONAL,
    OUT,
    OVER,
    RUNNING,
    SERVING,
    WAITED_FOR,
    Log,
    Record,
    Request,
    State,
    Step,
    Worker,
    acknowledged,
    given_up,
    put,
)

DIES = "{w} dies, or a commit of its raises and it closes"


class Protocol(Machine):
    """The machine, with some rules in force and some not."""

    def __init__(self, rules: Rules, setup: Setup) -> None:
        super().__init__(rules, setup)
        count = len(setup.orders)
        self._none = (0,) * count
        self._false = (False,) * count
        self._trims = rules.fence and not setup.warm

    def first(self) -> State:
        """Nobody owns the partition; the last owner left in order, and has told everything."""
        records = (Record(),) * len(self._none)
        log = Log(0, 0, True, records, self._none, self._false, None)
        return State(log, (NOBODY, NOBODY), (), ((0, 0),) * len(records), self.setup.faults)

    def steps(self, state: State) -> list[Step]:
        """Everything that may happen next. The states are not canonical yet."""
        self.collected = []
        for slot, worker in enumerate(state.workers):
            if worker.phase == OUT:
                self._take_over(state, slot)
            elif self._is_frozen(state, worker.epoch):
                self._frozen(state, slot)
            elif worker.phase == FENCED:
                self._activate(state, slot)
            else:
                self._serve(state, slot)
        for request in dict.fromkeys(state.requests):
            self._travel(state, request)
        if self.setup.warm:
            self._compact(state)
        return self.collected

    def canonical(self, state: State) -> tuple[State, bool]:
        """The representative of a state, and whether the workers have changed places in it."""
        return canonical(state, self.orders, trims=self._trims)

    @staticmethod
    def _is_frozen(state: State, epoch: int) -> bool:
        return any(r.stage == IN_GAP and r.epoch == epoch for r in state.requests)

    # --- taking over (steps 3 to 8) ---

    def _take_over(self, state: State, slot: int) -> None:
        log = state.log
        owned = any(w.epoch == log.epoch and w.phase in (FENCED, SERVING) for w in state.workers)
        kind = FAULT if owned and not self._is_frozen(state, log.epoch) else FREE
        text = "{w} fences, though another owner is at work" if owned else "{w} fences"
        worker = state.workers[slot]._replace(phase=FENCED, epoch=log.epoch + 1)
        self.add(kind, text, slot, exchange(state, slot, worker, log._replace(epoch=log.epoch + 1)))

    def _activate(self, state: State, slot: int) -> None:
        log, worker = state.log, state.workers[slot]
        if worker.epoch < log.epoch:
            self.add(FREE, "{w} finds itself fenced", slot, self.lose(state, slot))
            return
        self._restore(state, slot, (log.next, log.clean, log.records), "")
        if log.before is not None:
            self._restore(state, slot, log.before, ", one commit short,")
        self._loss(state, slot)

    def _restore(self, state: State, slot: int, seen: tuple[int, bool, tuple[Record, ...]], how: str) -> None:
        rules, log, worker = self.rules, state.log, state.workers[slot]
        following, clean, records = seen
        if worker.records:
            records = self._read_warm(worker, log)
        memory: list[Record] = []
        holds: list[int] = []
        for record in records:
            inherited = not clean and (record.may_land_late or record.revision > record.acked)
            held = (inherited and rules.hold_inherited) or (clean and record.may_land_late and rules.hold_uncertain)
            holds.append(HOLD_H if held else NO_HOLD)
            marked = inherited and rules.doubt_inherited
            memory.append(record._replace(may_land_late=True, remote_unknown=True) if marked else record)
        said = "".join(f", {name} is held" for name, hold in zip(self.orders.names, holds, strict=True) if hold)
        text = f"{{w}} restores{how} and activates ({'clean' if clean else 'unclean'}{said})"
        harm = "I3: a clean handover, but memory and log differ" if clean and records != log.records else ""
        unread = self._false if self.setup.warm else ()
        decided = self._none if self.setup.operator else ()
        active = Worker(SERVING, worker.epoch, RUNNING, following, tuple(memory), tuple(holds), unread, decided)
        active = active._replace(survivor=worker.survivor)
        log = log._replace(next=following, clean=clean and not rules.activation_unclean)
        self.add(FREE, text, slot, exchange(state, slot, active, log), harm=harm)

    def _read_warm(self, worker: Worker, log: Log) -> tuple[Record, ...]:
        """What was written since is read; of a tombstone that is gone there is nothing to read."""
        readable = (record != GONE or there for record, there in zip(log.records, log.tombstones, strict=True))
        return tuple(
            new if unread and there else old
            for old, new, unread, there in zip(worker.records, log.records, worker.unread, readable, strict=True)
        )

    # --- an owner at work (steps 10 to 15) ---

    def _serve(self, state: State, slot: int) -> None:
        rules, worker = self.rules, state.workers[slot]
        is_fenced = worker.epoch < state.log.epoch
        if worker.phase == SERVING and not (is_fenced and rules.fence):
            if worker.staged:
                log = state.log._replace(next=worker.next, records=worker.records, clean=False)
                committed = exchange(state, slot, worker._replace(staged=False), log)
                self.add(FREE, "{w} commits what it has applied before", slot, committed)
            else:
                self._process(state, slot)
                self._leave(state, slot)
        if worker.lease != OVER or not rules.lease_check:
            for order in range(len(worker.records)):
                self._send(state, slot, order)
        if is_fenced or worker.phase == LEFT:
            self._end_lease(state, slot)
        else:
            self._loss(state, slot)

    def _process(self, state: State, slot: int) -> None:
        worker = state.workers[slot]
        if worker.next < len(self.orders.input):
            self._take_event(state, slot, worker.next, "")
        if worker.survivor and worker.next + 1 < len(self.orders.input):
            self._take_event(state, slot, worker.next + 1, ", of a batch fetched for an earlier owner")
        for order, record in enumerate(worker.records):
            is_owed = record.revision > record.acked
            if is_owed:
                self._decide(state, slot, order, record)
            may_expire = self.setup.expiry and not (is_owed and self.rules.close_settled)
            if may_expire and record.event and not self.attempts(state, slot, order):
                self._expire(state, slot, order, record)
            if self.setup.operator:
                self._operate(state, slot, order, record)

    def _take_event(self, state: State, slot: int, offset: int, how: str) -> None:
        rules, worker = self.rules, state.workers[slot]
        order, event = self.orders.input[offset]
        record = worker.records[order]
        if event > record.event or not rules.facts_are_a_set:
            revision = offset + 1 if rules.revision_from_offset else record.revision + 1
            record = record._replace(event=event, revision=revision)
        after = worker._replace(next=offset + 1, records=put(worker.records, order, record))
        if not rules.apply_after_commit:
            staged = exchange(state, slot, after._replace(staged=True))
            self.add(FREE, "{w} applies {e}, not committed yet", slot, staged, order, event)
            return
        self.commit(state, slot, order, record, "{w} commits {e}" + how, event, following=offset + 1)
        if not rules.one_transaction:
            half = self.lose(state, slot, dies=True)._replace(log=state.log._replace(next=offset + 1, clean=False))
            self.add(
                FAULT, "{w} commits the offset after {e}, and dies before it commits {e}", slot, half, order, event
            )
        if not rules.reread_after_loss:
            text = "{w} commits {e}: it raises and has not happened, but {w} goes on as if it had"
            self.add(FAULT, text, slot, exchange(state, slot, after), order, event)

    def _decide(self, state: State, slot: int, order: int, record: Record) -> None:
        """What is owed is parked, taken for equal, or (in `_send`) sent."""
        worker, event = state.workers[slot], record.event
        if self.orders.is_parked(record):
            released = record._replace(parked=0, refused=-1)
            self.commit(state, slot, order, released, "an operator releases {o}", kind=OPTIONAL)
        elif self.orders.payloads[order, event] == record.refused:
            parked = record._replace(parked=record.revision)
            self.commit(state, slot, order, parked, "{w} parks {e}: its payload was refused before", event)
        elif self.orders.is_same(order, record) and not self.attempts(state, slot, order):
            if not self.setup.operator:
                self.commit(state, slot, order, acknowledged(record), "{w} takes {e} for told already", event)
            elif worker.decided[order] != record.revision:
                decided = worker._replace(decided=put(worker.decided, order, record.revision))
                text = "{w} decides that {e} was told already"
                self.add(FREE, text, slot, exchange(state, slot, decided), order, event)

    def _operate(self, state: State, slot: int, order: int, record: Record) -> None:
        """A command, and a decision that is committed a while after it was made."""
        worker = state.workers[slot]
        if record.revision and not (record.acked == 0 and record.remote_unknown):
            resent = record._replace(acked=0, remote_unknown=True, parked=0, refused=-1)
            self.commit(state, slot, order, resent, "an operator has {o} sent again", kind=FAULT)
        if worker.decided[order]:
            in_doubt = (record.remote_unknown or record.may_land_late) and self.rules.decision_rechecked
            stands = record.acked < record.revision == worker.decided[order] and not in_doubt
            state = exchange(state, slot, worker._replace(decided=put(worker.decided, order, 0)))
            if stands:
                text = "{w} commits its decision that {e} was told already"
                self.commit(state, slot, order, acknowledged(record), text, record.event)
            else:
                self.add(FREE, "{w} drops its decision about {o}", slot, state, order)

    def _expire(self, state: State, slot: int, order: int, record: Record) -> None:
        if record.remote_unknown or record.may_land_late:
            return
        expired, tombstones = put(state.log.expired, order, record.event), state.log.tombstones
        log = state.log._replace(expired=expired, tombstones=put(tombstones, order, self.setup.warm))
        text = "{w} removes {o}, which is settled"
        self.commit(state._replace(log=log), slot, order, GONE, text, kind=OPTIONAL)

    def _send(self, state: State, slot: int, order: int) -> None:
        rules, worker = self.rules, state.workers[slot]
        record, attempts = worker.records[order], self.attempts(state, slot, order)
        if worker.holds[order] or not self.orders.is_due(order, record) or (attempts and rules.one_attempt):
            return
        versions = [(record.event, record.revision)]
        if not rules.newest_only:
            versions += self.orders.older(order, record.event)
        for event, revision in versions:
            if any(attempt.revision == revision for attempt in attempts):
                continue
            covered = worker.lease == RUNNING and rules.attempt_within_lease
            request = Request(order, event, revision, worker.epoch, WAITED_FOR, covered)
            sent = state._replace(requests=(*state.requests, request))
            self.add(FREE, "{w} sends {e}", slot, sent, order, event, self._broken_invariant(state, request))
            if self.setup.freeze_in_send_gap:
                stuck = state._replace(requests=(*state.requests, request._replace(stage=IN_GAP)))
                text = "{w} looks at its lease to send {e}, and freezes before it writes"
                self.add(FAULT, text, slot, stuck, order, event)

    @staticmethod
    def _broken_invariant(state: State, request: Request) -> str:
        """Which of I1, I5 and I6 a request breaks that is about to go out."""
        if request.revision > state.log.records[request.order].revision:
            return "I1: sent before it is durable"
        if not request.covered:
            return "I6: sent, but no lease lasts as long as the attempt"
        for other in state.requests:
            if other.order == request.order and other.revision != request.revision and other.covered:
                return "I5: sent while another revision may still land"
        return ""

    # --- losing the partition (steps 13, and 18 to 20) ---

    def _leave(self, state: State, slot: int) -> None:
        rules, worker = self.rules, state.workers[slot]
        attempts = self.attempts(state, slot)
        if not state.faults or (attempts and rules.leave_drains):
            return
        records = worker.records if rules.flags_before_clean else state.log.records
        log = state.log._replace(records=records, next=worker.next, clean=True)
        text = "{w} leaves in order" if not attempts else "{w} leaves in order, its attempts still under way"
        left = exchange(state, slot, worker._replace(phase=LEFT))
        if rules.lease_cut_on_leave:
            left = self.lose(state, slot)
        others = written(left, tuple(range(len(records))))
        if left.workers[slot].phase == OUT:  # but what it has written itself, it knows
            others = exchange(others, slot, left.workers[slot])
        self.add(FAULT, text, slot, others._replace(log=log))

    def _loss(self, state: State, slot: int) -> None:
        """At any moment; of a process, or of one actor in it: then the process remembers."""
        self.add(FAULT, DIES, slot, self.lose(state, slot, dies=True))
        if self.setup.warm:
            self.add(FAULT, "{w} closes: a commit raises, and was not visible", slot, self.lose(state, slot))

    def _end_lease(self, state: State, slot: int) -> None:
        """A fenced owner sees at its next commit that it is; its lease ends by itself."""
        rules, worker = self.rules, state.workers[slot]
        self.add(FREE, "{w} owns no more: it has noticed, or its lease has ended", slot, self.lose(state, slot))
        if worker.phase == LEFT or worker.lease != RUNNING:
            return
        if not rules.lease_from_commits:
            text, lease = "{w}'s lease ends; it is assigned as far as it knows, and goes on", BELIEVED
        elif not rules.lease_from_commit_start:
            text, lease = "{w}'s lease ends; a commit from before the fence returns only now, and renews it", BELIEVED
        elif not (rules.lease_check and rules.fence):
            text, lease = "{w}'s lease ends", OVER
        else:
            return
        ended = exchange(state, slot, worker._replace(lease=lease))
        self.add(FREE, text, slot, ended._replace(requests=given_up(state.requests, worker.epoch)))

    def _frozen(self, state: State, slot: int) -> None:
        worker = state.workers[slot]
        stuck = next(r for r in state.requests if r.stage == IN_GAP and r.epoch == worker.epoch)
        order, event = stuck.order, stuck.event
        if worker.lease == RUNNING:
            rest = tuple(r for r in state.requests if r is not stuck)
            sent = state._replace(requests=(*rest, stuck._replace(stage=WAITED_FOR)))
            self.add(FREE, "{w} thaws, and {e} goes out", slot, sent, order, event)
        else:
            late = self.lose(state, slot)
            requests = (*late.requests, stuck._replace(stage=GIVEN_UP, covered=False))
            text = "{w} thaws, and {e} goes out although its lease is over"
            self.add(FREE, text, slot, late._replace(requests=requests), order, event)
        if worker.lease == RUNNING and worker.epoch < state.log.epoch:
            ended = exchange(state, slot, worker._replace(lease=OVER))
            ended = ended._replace(requests=given_up(state.requests, worker.epoch))
            self.add(FREE, "{w}'s lease ends while it is frozen", slot, ended)
        self.add(FAULT, DIES, slot, self.lose(state, slot, dies=True))

    # --- requests on their way, and what becomes of attempts (steps 16 and 17) ---

    def _travel(self, state: State, request: Request) -> None:
        if request.stage in (IN_GAP, ANSWERED):
            return
        requests = list(state.requests)
        requests.remove(request)
        gone = state._replace(requests=tuple(requests))
        applied, harm = self._apply(gone, request)
        order, event = request.order, request.event
        if request.stage == GIVEN_UP:
            self.add(FREE, "{e}, given up before, lands at the provider", -1, applied, order, event, harm)
            self.add(FREE, "{e}, given up before, vanishes", -1, gone, order, event)
            return
        slot = next(i for i, w in enumerate(state.workers) if w.epoch == request.epoch and w.phase != OUT)
        worker = state.workers[slot]
        if worker.phase == LEFT or (worker.epoch < state.log.epoch and self.rules.fence):
            answered = request._replace(stage=ANSWERED, covered=False)
            applied = applied._replace(requests=(*requests, answered))
            self.add(FREE, "the provider takes {e}; {w} cannot commit the ack", slot, applied, order, event, harm)
        elif not worker.staged and not self._is_frozen(state, worker.epoch):
            self._answer(state, slot, request, gone, applied, harm)
            self._lack_answer(slot, request, gone, applied, harm)

    def _answer(self, state: State, slot: int, request: Request, gone: State, applied: State, harm: str) -> None:
        order, event = request.order, request.event
        record, told = state.workers[slot].records[order], self.orders.payloads[order, event]
        revision = request.revision if self.rules.ack_own_revision else record.revision
        acked = record._replace(
            acked=max(record.acked, revision),
            told=told,
            may_land_late=False,
            remote_unknown=False,
            parked=0,
            refused=-1,
        )
        self.commit(applied, slot, order, acked, "the provider takes {e}; {w} commits the ack", event, harm=harm)
        doubtful = record._replace(remote_unknown=record.remote_unknown or self.rules.doubt_after_5xx)
        text = "the provider takes {e}, but answers 500"
        self.commit(applied, slot, order, doubtful, text, event, kind=FAULT, harm=harm)
        refused = record._replace(parked=request.revision, refused=told)
        self.commit(gone, slot, order, refused, "the provider refuses {e} for good", event, kind=FAULT)

    def _lack_answer(self, slot: int, request: Request, gone: State, applied: State, harm: str) -> None:
        """The outcome is unknown: nothing says which of these it was."""
        order, worker = request.order, gone.workers[slot]
        record = worker.records[order]
        marked = record._replace(
            may_land_late=record.may_land_late or self.rules.uncertain_unknown, remote_unknown=True
        )
        late = gone._replace(requests=(*gone.requests, request._replace(stage=GIVEN_UP)))
        held = worker._replace(holds=put(worker.holds, order, HOLD_G if self.rules.hold_unknown else NO_HOLD))
        for after, text, wrong in (
            (gone, "{e} is lost; {w} gives it up", ""),
            (applied, "the provider takes {e}, its answer is lost; {w} gives it up", harm),
            (late, "{w} gives {e} up, which is still under way", ""),
        ):
            after = exchange(after, slot, held)  # noqa: PLW2901
            self.commit(after, slot, order, marked, text, request.event, kind=FAULT, harm=wrong)

    def _apply(self, state: State, request: Request) -> tuple[State, str]:
        """The provider takes a request; it goes backwards when that is older than what it has, or has acknowledged."""
        order, payloads = request.order, self.orders.payloads
        revision, event = state.provider[order]
        if self.setup.conditional_provider and request.revision < revision:
            return state, ""
        newest, harm = max(revision, state.log.records[order].acked), ""
        if payloads[order, request.event] != payloads[order, event]:
            harm = BACKWARDS if request.revision < newest else ""
            newest = request.revision
        held = (max(newest, request.revision), request.event)
        return state._replace(provider=put(state.provider, order, held)), harm

    def _compact(self, state: State) -> None:
        """A tombstone goes after days; what a process remembers, it does for minutes, and leases end sooner still."""
        if any(w.phase == SERVING and w.epoch < state.log.epoch for w in state.workers):
            return
        for order, readable in enumerate(state.log.tombstones):
            if readable:
                log = state.log._replace(tombstones=put(state.log.tombstones, order, False))
                workers = state.workers
                if self.rules.warm_expires:
                    workers = tuple(w if w.phase == SERVING else w._replace(records=(), unread=()) for w in workers)
                text = "compaction removes the tombstone of {o}"
                self.add(OPTIONAL, text, -1, state._replace(log=log, workers=workers), order)
