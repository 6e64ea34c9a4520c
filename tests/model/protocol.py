"""The ownership protocol as a state machine: what may happen next, in every state.

Theory of operation. One partition of the input, its partition of the state topic, two workers that the consumer group
may make its owner at any moment, one provider. A state of the model holds all of these; `Protocol.steps` gives every
step that any of them may take next, each with the state after it. The search takes them all, so it sees every
interleaving. A worker that is not scheduled is a worker that is frozen: freezing needs no step of its own, except where
time matters (below).

A step is *free* (it happens sooner or later), *optional* (it may never happen: an operator, a sweep, compaction) or a
*fault*, of which a search allows so many. A state without free steps is *quiet*: the provider must then hold the newest
payload of every order, and the state topic the newest facts.

Transactions. A commit is one step: between its begin and its return the actor does nothing else that counts, and what
others do meanwhile they may as well do before or after. A commit that raised is no step of its own either: seen or not
seen by the brokers, the actor closes, so it is the commit (or none) and then a loss. One item per transaction: a
batch is several with nothing in between.

The state topic is kept as the last record of each key: what a reader that reads to its own barrier finds, whatever
compaction has or has not removed by then. (A record that a successor has overwritten may be missing for the reader
before it; but that reader is fenced then, and never activates.) Tombstones are the exception, `warm` has them.

Time. No clock; but the order that times enforce, on the assumption that L, D, G and H are right:
* Leases are measured from the commit, and only an owner of the newest epoch commits. So the lease of a fenced owner
  *ends* at some moment, and never starts again. It may be much later than the fence.
* An attempt starts only if it is given up before the lease ends; it is *covered* by the lease. When a lease ends, or a
  process does, its attempts are given up (a dead process's by its kernel).
* A request that was given up may still *land*, or *vanish*, until it is settled (G): a hold of G ends when none of the
  owner's requests for the order that were given up is under way any more.
* H = L + G from the fence: a takeover's holds end when the lease of every older owner has ended, and no covered request
  of theirs is under way. A request that no lease covers is not waited for: nothing says when it lands.
Holds end by themselves as soon as they may: nobody has to send then, so this hides nothing.

A freeze between the last look at the lease and the write to the socket is the one place where being frozen is a step:
the request exists, is not under way, and goes out when the process thaws, whether or not a lease still covers it.
"""

from typing import NamedTuple, TypeVar

from tests.model.rules import Rules, Setup

T = TypeVar("T")

OUT, FENCED, SERVING, LEFT = "out", "fenced", "serving", "left"
"""Phases of a worker. `LEFT` exists only where leaving does not cut the lease."""

OVER, RUNNING, BELIEVED = 0, 1, 2
"""A lease; the last exists only where something else than a commit extends it."""

IN_GAP, WAITED_FOR, GIVEN_UP, ANSWERED = 0, 1, 2, 3
"""A request: not written yet by a frozen process; under way; under way with nobody waiting for it; applied, with an
answer that its owner, fenced, cannot commit: until it notices, the attempt is in flight for it."""

NO_HOLD, HOLD_G, HOLD_H = 0, 1, 2

FREE, OPTIONAL, FAULT = 0, 1, 2


class Record(NamedTuple):
    """An order as the state topic has it."""

    event: int = 0
    """The number of its newest event, which stands for its facts; 0: what was confirmed at checkout."""
    revision: int = 0
    acked: int = 0
    told: int = 0
    """The payload that the provider was last known to hold (an event's number); -1: not known."""
    uncertain: bool = False
    doubt: bool = False
    parked: int = 0
    """The revision that is known to be parked."""
    refused: int = -1
    """The payload that is parked; -1: none."""


GONE = Record(told=-1)
"""After a tombstone: nothing is known."""


class Request(NamedTuple):
    """A request, from its last look at the lease until it is applied or lost."""

    order: int
    event: int
    revision: int
    epoch: int
    stage: int
    covered: bool
    """A lease lasts for as long as its owner waits for it."""


class Worker(NamedTuple):
    """A process. Out, it may still remember the partition (`records`)."""

    phase: str
    epoch: int = 0
    lease: int = OVER
    next: int = 0
    records: tuple[Record, ...] = ()
    holds: tuple[int, ...] = ()
    unread: tuple[bool, ...] = ()
    """Orders that others have written since it last read them."""
    decided: tuple[int, ...] = ()
    """Revisions that it has decided to acknowledge without a call, and not committed yet; 0: none."""
    staged: bool = False
    """Memory runs ahead of the log: only where it is applied before the commit."""
    survivor: bool = False
    """It has fetched batches as an earlier owner: only where they are not dropped."""


class Log(NamedTuple):
    """The state topic, and who may commit to it."""

    epoch: int
    next: int
    clean: bool
    records: tuple[Record, ...]
    expired: tuple[int, ...]
    """By order: the newest event at its last tombstone."""
    tombstones: tuple[bool, ...]
    """By order: its tombstone can still be read."""
    before: tuple[int, bool, tuple[Record, ...]] | None
    """As it was one commit ago: only where a restore may end early."""


class State(NamedTuple):
    """All there is. `provider` has (revision, event) by order."""

    log: Log
    workers: tuple[Worker, ...]
    requests: tuple[Request, ...]
    provider: tuple[tuple[int, int], ...]
    faults: int


class Step(NamedTuple):
    """Something that may happen. `text` has places for the worker `w` and the event `e`."""

    kind: int
    text: str
    slot: int
    order: int
    event: int
    state: State
    harm: str = ""


NOBODY = Worker(OUT)
STALE = "stale: nothing happens any more, and the provider or the state topic is older than the newest event"
BACKWARDS = "backwards: the provider has taken an older payload than it had"
LOST = "lost: the state topic is not what its input says, and no event is left that would put it right"
HARMS = (STALE, BACKWARDS, LOST)


class Protocol:
    """The machine, with some rules in force and some not."""

    def __init__(self, rules: Rules, setup: Setup) -> None:
        self.rules = rules
        self.setup = setup
        self.input: list[tuple[int, int]] = []
        self.payloads: dict[tuple[int, int], int] = {}
        for event in setup.events.split():
            name, _, same_as = event.partition("=")
            order, number = setup.orders.index(name[0]), int(name[1:])
            self.input.append((order, number))
            self.payloads.setdefault((order, number), int(same_as) if same_as else number)
        count = len(setup.orders)
        for order in range(count):
            self.payloads[order, 0] = 0
        self.folds: list[tuple[int, ...]] = [
            tuple(max([0, *(n for o, n in self.input[:end] if o == order)]) for order in range(count))
            for end in range(len(self.input) + 1)
        ]
        self._none = (0,) * count
        self._false = (False,) * count
        self._steps: list[Step] = []
        self._trims = rules.fence and not setup.warm
        """A fenced owner can do nothing any more but send what it has."""

    def first(self) -> State:
        """Nobody owns the partition; the last owner left in order, and has told everything."""
        records = (Record(),) * len(self.setup.orders)
        log = Log(0, 0, True, records, self._none, self._false, None)
        return State(log, (NOBODY, NOBODY), (), ((0, 0),) * len(records), self.setup.faults)

    def steps(self, state: State) -> list[Step]:
        """Everything that may happen next. The states are not canonical yet."""
        self._steps = []
        for slot, worker in enumerate(state.workers):
            if worker.phase == OUT:
                self._take_over(state, slot)
            elif any(r.stage == IN_GAP and r.epoch == worker.epoch for r in state.requests):
                self._frozen(state, slot)
            elif worker.phase == FENCED:
                self._activate(state, slot)
            else:
                self._serve(state, slot)
        for request in dict.fromkeys(state.requests):
            self._travel(state, request)
        if self.setup.warm:
            self._compact(state)
        return self._steps

    def quiet_harm(self, state: State) -> str:
        """What is wrong with a state in which nothing is left to happen."""
        newest = self.folds[-1]
        for order, record in enumerate(state.log.records):
            wanted = self.payloads[order, newest[order]]
            is_gone = record.event == 0 and state.log.expired[order] == newest[order]
            if record.event != newest[order] and not is_gone:
                return STALE
            if self.payloads[order, state.provider[order][1]] != wanted:
                if self._is_parked(record) and record.refused == wanted:
                    continue
                return STALE
        return ""

    def harm(self, state: State) -> str:
        """What is wrong with a state at any time (I4: the state is the fold of the input below the next offset)."""
        fold = self.folds[state.log.next]
        for order, record in enumerate(state.log.records):
            if record.event < fold[order] and not (record.event == 0 and state.log.expired[order] == fold[order]):
                return LOST
        return ""

    # --- taking over (steps 3 to 8) ---

    def _take_over(self, state: State, slot: int) -> None:
        log = state.log
        owners = [w for w in state.workers if w.epoch == log.epoch and w.phase in (FENCED, SERVING)]
        is_frozen = any(r.stage == IN_GAP and r.epoch == log.epoch for r in state.requests)
        kind = FAULT if owners and not is_frozen else FREE
        text = "{w} fences, though another owner is at work" if owners else "{w} fences"
        worker = state.workers[slot]._replace(phase=FENCED, epoch=log.epoch + 1)
        self._step(kind, text, slot, self._with(state, slot, worker, log=log._replace(epoch=log.epoch + 1)))

    def _activate(self, state: State, slot: int) -> None:
        log, worker = state.log, state.workers[slot]
        if worker.epoch < log.epoch:
            self._step(FREE, "{w} finds itself fenced", slot, self._lose(state, slot))
            return
        self._restore(state, slot, (log.next, log.clean, log.records), "")
        if log.before is not None:
            self._restore(state, slot, log.before, " from what it could see, one commit short")
        self._loss(state, slot)

    def _restore(self, state: State, slot: int, seen: tuple[int, bool, tuple[Record, ...]], how: str) -> None:
        rules, log, worker = self.rules, state.log, state.workers[slot]
        following, clean, records = seen
        if worker.records:  # warm: only what was written since is read; of a tombstone that is gone there is nothing
            records = tuple(
                new if unread and not (new == GONE and not readable) else old
                for old, new, unread, readable in zip(
                    worker.records, records, worker.unread, log.tombstones, strict=True
                )
            )
        memory: list[Record] = []
        holds: list[int] = []
        for record in records:
            inherited = not clean and (record.uncertain or record.revision > record.acked)
            hold = (inherited and rules.hold_inherited) or (clean and record.uncertain and rules.hold_uncertain)
            holds.append(HOLD_H if hold else NO_HOLD)
            mark = inherited and rules.doubt_inherited
            memory.append(record._replace(uncertain=True, doubt=True) if mark else record)
        said = " ".join(f"{self.setup.orders[order]} is held" for order, hold in enumerate(holds) if hold)
        text = f"{{w}} restores{how} ({'clean' if clean else 'unclean'}{', ' + said if said else ''}) and activates"
        active = Worker(SERVING, worker.epoch, RUNNING, following, tuple(memory), tuple(holds), self._false)
        active = active._replace(decided=self._none if self.setup.operator else (), survivor=worker.survivor)
        clean = clean and not rules.activation_unclean
        self._step(FREE, text, slot, self._with(state, slot, active, log=log._replace(next=following, clean=clean)))

    # --- an owner at work (steps 10 to 15) ---

    def _serve(self, state: State, slot: int) -> None:
        rules, worker = self.rules, state.workers[slot]
        is_fenced = worker.epoch < state.log.epoch
        if worker.phase == SERVING and (not is_fenced or not rules.fence):
            if worker.staged:
                log = state.log._replace(next=worker.next, records=worker.records, clean=False)
                text = "{w} commits what it has applied before"
                self._step(FREE, text, slot, self._with(state, slot, worker._replace(staged=False), log=log))
            else:
                self._process(state, slot)
                self._leave(state, slot)
        if worker.lease or not rules.lease_check:
            for order in range(len(worker.records)):
                self._send(state, slot, order)
        if is_fenced or worker.phase == LEFT:
            self._end_lease(state, slot)
        else:
            self._loss(state, slot)

    def _process(self, state: State, slot: int) -> None:
        worker = state.workers[slot]
        if worker.next < len(self.input):
            self._take_event(state, slot, worker.next)
            if worker.survivor and worker.next + 1 < len(self.input):
                self._take_event(state, slot, worker.next + 1)
        for order, record in enumerate(worker.records):
            if record.revision > record.acked:
                self._decide(state, slot, order, record)
            elif self.setup.operator and state.faults and record.revision:
                resent = record._replace(acked=0, doubt=True, parked=0, refused=-1)
                self._commit(state, slot, order, resent, "an operator has {o} sent again", kind=FAULT)
            elif self.setup.expiry and self._is_settled(state, slot, order):
                expired, tombstones = _put(state.log.expired, order, record.event), state.log.tombstones
                log = state.log._replace(expired=expired, tombstones=_put(tombstones, order, self.setup.warm))
                text = "{w} removes {o}, which is settled"
                self._commit(state._replace(log=log), slot, order, GONE, text, kind=OPTIONAL)
            if self.setup.operator and worker.decided[order]:
                self._carry_out(state, slot, order, record)

    def _take_event(self, state: State, slot: int, offset: int) -> None:
        rules, worker = self.rules, state.workers[slot]
        order, event = self.input[offset]
        record = worker.records[order]
        if event > record.event or not rules.facts_are_a_set:
            revision = offset + 1 if rules.revision_from_offset else record.revision + 1
            record = record._replace(event=event, revision=revision)
        skips = "" if offset == worker.next else ", of a batch fetched for an earlier owner"
        after = worker._replace(next=offset + 1, records=_put(worker.records, order, record))
        if not rules.apply_after_commit:
            text = "{w} applies {e}, not committed yet"
            self._step(FREE, text, slot, self._with(state, slot, after._replace(staged=True)), order, event)
            return
        self._commit(state, slot, order, record, f"{{w}} commits {{e}}{skips}", event, following=offset + 1)
        if not rules.one_transaction:
            text = "{w} commits the offset after {e}, and dies before it commits {e}"
            log = state.log._replace(next=offset + 1, clean=False)
            self._step(FAULT, text, slot, self._lose(state, slot, dead=True)._replace(log=log), order, event)
        if not rules.reread_after_loss:
            text = "{w} commits {e}; it raises and has not happened, but {w} goes on as if it had"
            self._step(FAULT, text, slot, self._with(state, slot, after), order, event)

    def _decide(self, state: State, slot: int, order: int, record: Record) -> None:
        """What is owed is parked, taken for equal, or (in `_send`) sent."""
        worker = state.workers[slot]
        if self._is_parked(record):
            released = record._replace(parked=0, refused=-1)
            self._commit(state, slot, order, released, "an operator releases {o}", kind=OPTIONAL)
            return
        payload = self.payloads[order, record.event]
        if payload == record.refused:
            parked = record._replace(parked=record.revision)
            self._commit(state, slot, order, parked, "{w} parks {e}: its payload was refused before", record.event)
        elif self._is_same(record, payload) and not self._attempts(state, slot, order):
            if not self.setup.operator:
                self._commit(state, slot, order, _acknowledged(record), "{w} takes {e} for told already", record.event)
            elif worker.decided[order] != record.revision:
                decided = worker._replace(decided=_put(worker.decided, order, record.revision))
                text = "{w} decides that {e} was told already"
                self._step(FREE, text, slot, self._with(state, slot, decided), order, record.event)

    def _carry_out(self, state: State, slot: int, order: int, record: Record) -> None:
        worker = state.workers[slot]
        is_doubtful = record.doubt or record.uncertain
        stands = record.revision == worker.decided[order] and not (is_doubtful and self.rules.decision_rechecked)
        state = self._with(state, slot, worker._replace(decided=_put(worker.decided, order, 0)))
        if stands and record.acked < record.revision:
            text = "{w} commits its decision that {e} was told already"
            self._commit(state, slot, order, _acknowledged(record), text, record.event)
        else:
            self._step(FREE, "{w} drops its decision about {o}", slot, state, order)

    def _send(self, state: State, slot: int, order: int) -> None:
        rules, worker = self.rules, state.workers[slot]
        record = worker.records[order]
        if not self._may_send(worker, order):
            return
        attempts = self._attempts(state, slot, order)
        if attempts and rules.one_attempt:
            return
        versions = [(record.event, record.revision)]
        if not rules.newest_only:
            versions += [(n, offset + 1) for offset, (o, n) in enumerate(self.input) if o == order and n < record.event]
        for event, revision in versions:
            if any(attempt.revision == revision for attempt in attempts):
                continue
            covered = worker.lease == RUNNING and rules.attempt_within_lease
            request = Request(order, event, revision, worker.epoch, WAITED_FOR, covered)
            harm = self._broken_invariant(state, request)
            sent = state._replace(requests=(*state.requests, request))
            self._step(FREE, "{w} sends {e}", slot, sent, order, event, harm)
            if self.setup.freeze_in_send_gap and state.faults:
                stuck = state._replace(requests=(*state.requests, request._replace(stage=IN_GAP)))
                text = "{w} looks at its lease to send {e}, and freezes before it writes"
                self._step(FAULT, text, slot, stuck, order, event)

    def _broken_invariant(self, state: State, request: Request) -> str:
        """Which of I1, I5 and I6 a request breaks that is about to go out."""
        if request.revision > state.log.records[request.order].revision:
            return "I1: sent before it is durable"
        if not request.covered:
            return "I6: sent without a lease"
        for other in state.requests:
            if other.order == request.order and other.revision != request.revision and other.covered:
                return "I5: sent while another revision may still land"
        return ""

    def _leave(self, state: State, slot: int) -> None:
        """Steps 18 to 20. Leaving only forbids, until its last transaction: so that is all there is to model."""
        rules, worker = self.rules, state.workers[slot]
        attempts = [r for r in state.requests if r.epoch == worker.epoch and r.stage == WAITED_FOR]
        if not state.faults or (attempts and rules.leave_drains):
            return
        records = worker.records if rules.flags_before_clean else state.log.records
        log = state.log._replace(records=records, next=worker.next, clean=True)
        text = "{w} leaves in order" if not attempts else "{w} leaves in order, its attempts still under way"
        if self.setup.warm:
            unread = (True,) * len(records)
            workers = tuple(w if w is worker or not w.records else w._replace(unread=unread) for w in state.workers)
            state = state._replace(workers=workers)
        if rules.lease_cut_on_leave:
            left = self._lose(state, slot)._replace(log=log)
        else:
            left = self._with(state, slot, worker._replace(phase=LEFT), log=log)
        self._step(FAULT, text, slot, left)

    # --- losing the partition ---

    def _loss(self, state: State, slot: int) -> None:
        """At any moment; of a process, or of one actor in it, whose commit raised."""
        self._step(FAULT, "{w} dies", slot, self._lose(state, slot, dead=True))
        if self.setup.warm:
            self._step(FAULT, "{w} loses its hold: a commit has raised", slot, self._lose(state, slot))

    def _end_lease(self, state: State, slot: int) -> None:
        """A fenced owner sees at its next commit that it is; its lease ends by itself."""
        rules, worker = self.rules, state.workers[slot]
        self._step(
            FREE, "{w} is an owner no more: it has noticed, or its lease has ended", slot, self._lose(state, slot)
        )
        if worker.phase == LEFT or worker.lease != RUNNING:
            return
        over = ""
        if not rules.lease_from_commits:
            over, lease = "{w}'s lease ends, but it is still assigned, and believes in it", BELIEVED
        elif not rules.lease_from_commit_start:
            over, lease = (
                "{w}'s lease ends, but a commit from before the fence returns only now, and renews it",
                BELIEVED,
            )
        elif not (rules.lease_check and rules.fence):
            over, lease = "{w}'s lease ends", OVER
        else:
            return
        requests = tuple(_given_up(r, worker.epoch) for r in state.requests)
        self._step(FREE, over, slot, self._with(state, slot, worker._replace(lease=lease))._replace(requests=requests))

    def _frozen(self, state: State, slot: int) -> None:
        worker = state.workers[slot]
        is_fenced = worker.epoch < state.log.epoch
        stuck = next(r for r in state.requests if r.stage == IN_GAP and r.epoch == worker.epoch)
        rest = tuple(r for r in state.requests if r is not stuck)
        if worker.lease == RUNNING:
            sent = state._replace(requests=(*rest, stuck._replace(stage=WAITED_FOR)))
            self._step(FREE, "{w} thaws, and {e} goes out", slot, sent, stuck.order, stuck.event)
            if is_fenced:
                ended = self._with(state, slot, worker._replace(lease=OVER))
                given_up = tuple(_given_up(r, worker.epoch) for r in state.requests)
                self._step(FREE, "{w}'s lease ends while it is frozen", slot, ended._replace(requests=given_up))
        else:
            late = self._lose(state, slot)
            requests = (*late.requests, stuck._replace(stage=GIVEN_UP, covered=False))
            text = "{w} thaws, and {e} goes out although its lease is over"
            self._step(FREE, text, slot, late._replace(requests=requests), stuck.order, stuck.event)
        self._step(FAULT, "{w} dies", slot, self._lose(state, slot, dead=True))

    def _lose(self, state: State, slot: int, *, dead: bool = False) -> State:
        """The worker is no owner any more; its requests are given up, those not written never are."""
        worker = state.workers[slot]
        after = NOBODY
        if self.setup.warm and not dead and worker.records:
            after = Worker(OUT, records=worker.records, unread=worker.unread)
        if not self.rules.one_incarnation and not dead:
            after = after._replace(survivor=True)
        requests = tuple(
            _given_up(r, worker.epoch)
            for r in state.requests
            if r.epoch != worker.epoch or r.stage not in (IN_GAP, ANSWERED)
        )
        return self._with(state, slot, after)._replace(requests=requests)

    # --- requests on their way, and what becomes of attempts (steps 16 and 17) ---

    def _travel(self, state: State, request: Request) -> None:
        if request.stage in (IN_GAP, ANSWERED):
            return
        requests = list(state.requests)
        requests.remove(request)
        gone = state._replace(requests=tuple(requests))
        applied, harm = self._apply(gone, request)
        order, event = request.order, request.event
        slot = next((i for i, w in enumerate(state.workers) if w.epoch == request.epoch and w.phase != OUT), -1)
        if request.stage == GIVEN_UP:
            self._step(FREE, "{e}, given up long ago, lands at the provider", -1, applied, order, event, harm)
            self._step(FREE, "{e}, given up long ago, vanishes", -1, gone, order, event)
            return
        worker = state.workers[slot]
        can_commit = worker.phase == SERVING and (worker.epoch == state.log.epoch or not self.rules.fence)
        if not can_commit:
            text = "the provider takes {e}; {w} cannot commit the ack"
            answered = request._replace(stage=ANSWERED, covered=False)
            applied = applied._replace(requests=(*gone.requests, answered))
            self._step(FREE, text, slot, applied, order, event, harm)
            return
        if worker.staged:
            return
        if any(r.stage == IN_GAP and r.epoch == worker.epoch for r in state.requests):
            return
        self._answers(state, slot, request, applied, harm)
        if state.faults:
            self._unknowns(state, slot, request, gone, applied, harm)

    def _answers(self, state: State, slot: int, request: Request, applied: State, harm: str) -> None:
        record, (order, event) = state.workers[slot].records[request.order], request[:2]
        payload = self.payloads[order, event]
        revision = request.revision if self.rules.ack_own_revision else record.revision
        acked = record._replace(
            acked=max(record.acked, revision), told=payload, uncertain=False, doubt=False, parked=0, refused=-1
        )
        self._commit(applied, slot, order, acked, "the provider takes {e}; {w} commits the ack", event, harm=harm)
        if not state.faults:
            return
        doubtful = record._replace(doubt=record.doubt or self.rules.doubt_after_5xx)
        text = "the provider takes {e}, but answers 500"
        self._commit(applied, slot, order, doubtful, text, event, kind=FAULT, harm=harm)
        refused = record._replace(parked=request.revision, refused=payload)
        gone = applied._replace(provider=state.provider)
        self._commit(gone, slot, order, refused, "the provider refuses {e} for good", event, kind=FAULT)

    def _unknowns(self, state: State, slot: int, request: Request, gone: State, applied: State, harm: str) -> None:
        rules, worker, order = self.rules, state.workers[slot], request.order
        record = worker.records[order]
        unknown = record._replace(uncertain=record.uncertain or rules.uncertain_unknown, doubt=True)
        late = gone._replace(requests=(*gone.requests, request._replace(stage=GIVEN_UP)))
        for after, text, wrong in (
            (gone, "{e} is lost; {w} gives up", ""),
            (applied, "the provider takes {e}, the answer is lost; {w} gives up", harm),
            (late, "{w} gives up on {e}, which is still under way", ""),
        ):
            if rules.hold_unknown:
                held = worker._replace(holds=_put(worker.holds, order, HOLD_G))
                after = self._with(after, slot, held)  # noqa: PLW2901
            self._commit(after, slot, order, unknown, text, request.event, kind=FAULT, harm=wrong)

    def _apply(self, state: State, request: Request) -> tuple[State, str]:
        """The provider takes a request; it goes backwards when that is older than what it has, or has acknowledged."""
        order = request.order
        revision, event = state.provider[order]
        if self.setup.conditional_provider and request.revision < revision:
            return state, ""
        newest = max(revision, state.log.records[order].acked)
        if self.payloads[order, request.event] == self.payloads[order, event]:
            request = request._replace(revision=newest) if request.revision < newest else request
        harm = BACKWARDS if request.revision < newest else ""
        return state._replace(provider=_put(state.provider, order, (request.revision, request.event))), harm

    # --- the state topic ---

    def _commit(
        self,
        state: State,
        slot: int,
        order: int,
        record: Record,
        text: str,
        event: int = 0,
        *,
        kind: int = FREE,
        harm: str = "",
        following: int | None = None,
    ) -> None:
        """One transaction: the record of an order, and the next offset."""
        if kind == FAULT and not state.faults:
            return
        worker, log = state.workers[slot], state.log
        is_fenced = worker.epoch < log.epoch
        if not harm and record.event and record.revision < log.records[order].revision:
            harm = "I9: the revision decreases"
        before = None if self.rules.read_to_barrier else (log.next, log.clean, log.records)
        following = worker.next if following is None else following
        log = log._replace(next=following, clean=False, records=_put(log.records, order, record), before=before)
        lease = worker.lease if is_fenced else RUNNING
        after = worker._replace(next=following, records=_put(worker.records, order, record), lease=lease)
        others = state._replace(workers=tuple(_unread(w, order) for w in state.workers)) if self.setup.warm else state
        self._step(kind, text, slot, self._with(others, slot, after, log=log), order, event, harm)
        if self.setup.warm and kind == FREE:
            raised = self._with(others, slot, state.workers[slot]._replace(unread=_put(worker.unread, order, True)))
            lost = self._lose(raised, slot)._replace(log=log)
            self._step(FAULT, f"{text}, but the commit raises: {{w}} closes its hold", slot, lost, order, event, harm)

    def _compact(self, state: State) -> None:
        """A tombstone goes after days; what a process remembers, it does for minutes."""
        for order, readable in enumerate(state.log.tombstones):
            if readable:
                log = state.log._replace(tombstones=_put(state.log.tombstones, order, False))
                workers = state.workers
                if self.rules.warm_expires:
                    workers = tuple(NOBODY if w.phase == OUT else w for w in workers)
                text = "compaction removes the tombstone of {o}"
                self._step(OPTIONAL, text, -1, state._replace(log=log, workers=workers), order)

    # --- what is said of orders ---

    def _is_parked(self, record: Record) -> bool:
        if not self.rules.park_by_revision:
            return record.refused >= 0
        return record.refused >= 0 and record.parked == record.revision

    def _is_same(self, record: Record, payload: int) -> bool:
        in_doubt = (record.doubt or record.uncertain) and self.rules.suppress_without_doubt
        return payload == record.told and not in_doubt

    def _may_send(self, worker: Worker, order: int) -> bool:
        """Whether an order is owed and not held; attempts and the lease apart."""
        return not worker.holds[order] and self._is_due(order, worker.records[order])

    def _is_due(self, order: int, record: Record) -> bool:
        if record.revision <= record.acked or self._is_parked(record):
            return False
        payload = self.payloads[order, record.event]
        return payload != record.refused and not self._is_same(record, payload)

    def _attempts(self, state: State, slot: int, order: int) -> list[Request]:
        epoch = state.workers[slot].epoch
        return [r for r in state.requests if r.order == order and r.epoch == epoch and r.stage != GIVEN_UP]

    def _is_settled(self, state: State, slot: int, order: int) -> bool:
        record = state.workers[slot].records[order]
        is_told = record.event > 0 and record.revision == record.acked and not (record.doubt or record.uncertain)
        return is_told and not self._attempts(state, slot, order)

    # --- bookkeeping ---

    def _step(
        self, kind: int, text: str, slot: int, state: State, order: int = 0, event: int = 0, harm: str = ""
    ) -> None:
        if kind == FAULT:
            if not state.faults:
                return
            state = state._replace(faults=state.faults - 1)
        self._steps.append(Step(kind, text, slot, order, event, state, harm))

    def _with(self, state: State, slot: int, worker: Worker, *, log: Log | None = None) -> State:
        workers = (worker, state.workers[1]) if slot == 0 else (state.workers[0], worker)
        return state._replace(workers=workers, log=log or state.log)

    def canonical(self, state: State) -> tuple[State, bool]:
        """One state for all that behave alike, and whether the workers have changed places in it.

        Holds that may end have ended; of a fenced owner only what it may still send is left; epochs are ranks;
        workers and requests are sorted.
        """
        log, requests = state.log, state.requests
        trimmed = [self._trimmed(w, state) for w in state.workers]
        if self._trims:
            requests = tuple(r for r in requests if r.stage != ANSWERED)
        workers = [self._unheld(w, trimmed, requests) for w in trimmed]
        alive = sorted({log.epoch, *(w.epoch for w in workers if w.phase != OUT)})
        if requests:
            ranks = {r.epoch: 2 * sum(e < r.epoch for e in alive) + (r.epoch in alive) for r in requests}
            requests = tuple(sorted(r._replace(epoch=ranks[r.epoch]) for r in requests))
        ranked = {epoch: 2 * rank + 1 for rank, epoch in enumerate(alive)}
        workers = [w if w.phase == OUT else w._replace(epoch=ranked[w.epoch]) for w in workers]
        swapped = workers[1] < workers[0]
        if swapped:
            workers.reverse()
        log = log._replace(epoch=ranked[log.epoch])
        return State(log, tuple(workers), requests, state.provider, state.faults), swapped

    def _unheld(self, worker: Worker, workers: list[Worker], requests: tuple[Request, ...]) -> Worker:
        if not any(worker.holds):
            return worker
        holds = list(worker.holds)
        for order, hold in enumerate(holds):
            if hold == HOLD_G:
                if not any(r.order == order and r.epoch == worker.epoch and r.stage == GIVEN_UP for r in requests):
                    holds[order] = NO_HOLD
            elif hold == HOLD_H and not any(r.epoch < worker.epoch and r.covered for r in requests):
                older = (w for w in workers if w.phase != OUT and w.epoch < worker.epoch)
                if not self.rules.hold_covers_lease or not any(w.lease == RUNNING for w in older):
                    holds[order] = NO_HOLD
        return worker._replace(holds=tuple(holds))

    def _trimmed(self, worker: Worker, state: State) -> Worker:
        if worker.phase != SERVING or worker.epoch == state.log.epoch or not self._trims:
            return worker
        mine = [r for r in state.requests if r.epoch == worker.epoch]
        answered = {r.order for r in mine if r.stage == ANSWERED}
        due = [self._is_due(order, record) and order not in answered for order, record in enumerate(worker.records)]
        if not any(due) and len(mine) == len(answered):
            return NOBODY._replace(survivor=not self.rules.one_incarnation)
        records = tuple(
            record._replace(acked=0, told=-1, uncertain=False, doubt=True, parked=0, refused=-1) if is_due else GONE
            for record, is_due in zip(worker.records, due, strict=True)
        )
        holds = tuple(hold if is_due else NO_HOLD for hold, is_due in zip(worker.holds, due, strict=True))
        return worker._replace(records=records, holds=holds, next=0, staged=False, decided=())


def _put(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _acknowledged(record: Record) -> Record:
    return record._replace(acked=record.revision, parked=0, refused=-1)


def _given_up(request: Request, epoch: int) -> Request:
    if request.epoch != epoch or request.stage != WAITED_FOR:
        return request
    return request._replace(stage=GIVEN_UP)


def _unread(worker: Worker, order: int) -> Worker:
    return worker._replace(unread=_put(worker.unread, order, True)) if worker.records else worker
