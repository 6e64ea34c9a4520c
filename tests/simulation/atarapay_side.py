"""AtaraPay, and what a client of it must never do: give a word twice, or without having asked."""

from random import Random
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from schemas.facts import Facts
from schemas.state import OrderRecord
from tests.shops.counts import ShopOrder, total_of
from tests.simulation.callbacks import Callbacks
from tests.simulation.looks import Looks
from tests.simulation.sides import About, Request
from tests.simulation.trace import Trace
from worker.core.order import assess
from worker.model.callbacks import Called
from worker.model.exchange import Fault, HttpRequest, HttpResponse
from worker.model.order import reference_of
from worker.providers.atarapay import meaning
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.atarapay.wire import BEYOND_DELIVERY, CANCELS, DELIVERABLE, DELIVERED, ORDER_STATUS, State
from worker.sandbox.atarapay.escrow import Act, Escrow, Habits, Sandbox

TOLD = BEYOND_DELIVERY | {State.SECOND}
"""Where an escrow is that was delivered once."""


class Known(NamedTuple):
    """Whose an escrow is."""

    subject: str
    shop: ShopOrder


class AtaraPaySide:
    """`sides.Side` of one AtaraPay account."""

    def __init__(self, account: AtaraPayAccount, random: Random, trace: Trace, callbacks: Callbacks) -> None:
        habits = Habits(random.choice((200, 400, 422)), random.choice(("Canceled", "CANCELLED")), random.random() < 0.3)
        self.sandbox = Sandbox(account.public_key, account.private_key, habits)
        self.known: dict[str, Known] = {}
        """By the escrow's number."""
        self._account = account
        self._trace = trace
        self._callbacks = callbacks
        self._looks = Looks()
        self._agreed: dict[str, int] = {}
        """By number, second attempts that were agreed on."""
        self._unheard: set[str] = set()
        """Numbers of which a notification was lost: what it told, nobody may ever ask about."""
        self._guessed: dict[str, set[Request]] = {}
        """By number, words after Pending II without an answer: should Pending II come again, they seem not taken."""
        self._taken: dict[str, list[HttpRequest]] = {}
        """By number, words as they came: a second copy of one, late on its way, may pass for the next one."""

    def checkout(self, first: ShopOrder, shop: ShopOrder) -> None:
        """The buyer has paid: `first` is the order as it was then, `shop` as it will be in the end."""
        number, told = first.provider_order, first.told()
        self.known[number] = Known(first.subject, shop)
        amount_minor = total_of([*told.shipped, *told.unshipped])
        self.sandbox.open(number, reference_of(first.subject), amount_minor)

    def escrow(self, subject: str) -> Escrow:
        """What AtaraPay holds of it."""
        return self.sandbox.escrows[next(number for number, known in self.known.items() if known.subject == subject)]

    def act(self, number: str, act: Act) -> None:
        """Somebody does something there, if it can be done."""
        if self.sandbox.act(number, act):
            self._trace.add("acted", self.known[number].subject, act)
            self._agreed[number] = self._agreed.get(number, 0) + (act is Act.AGREE_SECOND_ATTEMPT)
            self._tell()

    # --- the side of the network ---

    def about(self, request: HttpRequest) -> About:
        """The form names the escrow, and has a word for what is wanted of it."""
        form = _form(request)
        return About(self.known[form["order"]].subject, is_read=form["status"] == ORDER_STATUS)

    def sent(self, request: Request) -> None:
        """A word goes out unasked only when it is the first one."""
        if request.about.is_read:
            return
        word, seen = _form(request.call)["status"], self._looks.seen(request)
        if request.subject in self._looks.commands and seen is None:
            self._trace.violate(
                f"{request}: {word}, and its process has not asked for the state since the last word",
                "look_before_command",
            )
        if seen is not None and seen not in DELIVERABLE:
            self._trace.violate(f"{request}: {word}, and Order Status had said {seen}", "word_fits_state")
        self._looks.commanded(request)
        if seen is State.SECOND:
            self._guessed.setdefault(_form(request.call)["order"], set()).add(request)

    def take(self, request: Request) -> None:
        """Answers by the model of AtaraPay."""
        form = _form(request.call)
        self._trace.add("taken", request.subject, form["status"])
        request.answer = self.sandbox.call(request.body)
        if not request.about.is_read:
            self._taken.setdefault(form["order"], []).append(request.call)
        self._check(form["order"])
        self._tell()

    def refuse(self, request: Request) -> None:
        """Remembers nothing of it."""

    def answered(self, request: Request, answer: HttpResponse | Fault) -> None:
        """Order Status tells the state; of a word, an answer tells what became of it."""
        if not request.about.is_read and answer is request.answer:
            self._guessed.get(_form(request.call)["order"], set()).discard(request)
        if not (request.about.is_read and isinstance(answer, HttpResponse) and answer.status == 200):
            return
        said = msgspec.json.decode(answer.body)
        if said["status"] == "success":
            title = said["data"]["status"]["title"]
            self._looks.looked(request, State.CANCELLED if title.upper().startswith("CANCEL") else State(title))

    def acknowledged(self, record: OrderRecord, subject: str, facts: Facts) -> None:  # noqa: ARG002 - as it was then
        """Where the escrow is when its order counts as told."""
        order = assess(facts, reference_of(subject)).order
        word = "" if order is None else meaning.wanted(order).word
        escrow = self.escrow(subject)
        was_delivered = escrow.state in TOLD or DELIVERED in escrow.words  # and may have been cancelled there since
        if (word == DELIVERED and not was_delivered) or (word in CANCELS and escrow.state is not State.CANCELLED):
            self._trace.violate(
                f"{subject}: acknowledged as {word}, AtaraPay holds it as {escrow.state}", "settled_is_so"
            )

    def heard(self, subject: str, revision: int) -> None:
        """Only what it claims may have to be asked about."""

    def is_quiet(self) -> bool:
        """Whatever happens there happens at once."""
        return True

    # --- what happens there ---

    def _check(self, number: str) -> None:
        """One word, and one more for each second attempt, if there was a newer delivery for it."""
        words, shop = self.sandbox.escrows[number].words, self.known[number].shop
        taken = self._taken.get(number, [])
        excused = shop.delivered_anew + len(self._guessed.get(number, ())) + len(taken) - len(set(map(id, taken)))
        again = min(self._agreed.get(number, 0), excused)
        if words.count(DELIVERED) > 1 + again or len(words) > 2 + again:
            self._trace.violate(f"{self.known[number].subject} was told {words}", "one_word")

    def _tell(self) -> None:
        told, self.sandbox.untold[:] = list(self.sandbox.untold), []
        for one in told:
            content = {"status": one.status, "message": one.message, "data": one.data, "token": one.token}
            is_heard = self._callbacks.call(
                Called(
                    account=self._account.name,
                    purpose="notification",
                    reference="",
                    media_type="application/json",
                    body=msgspec.json.encode(content),
                    arrived_ms=0,
                    public_key=self._account.public_key,
                    private_key=self._account.private_key,
                )
            )
            if not is_heard:
                self._unheard.add(str(one.data["id"]))

    def check_end(self, first: ShopOrder, shop: ShopOrder, status: str) -> None:
        """AtaraPay was told what the shop means, unless it cannot be any more."""
        subject, means = first.subject, shop.means()
        escrow = self.escrow(subject)
        is_over = escrow.state is State.CANCELLED and not CANCELS.intersection(escrow.words)
        if escrow.number in self._unheard and (is_over or status != "settled"):
            return
        if means == DELIVERED:
            is_so, may_be = escrow.state in TOLD, escrow.state in DELIVERABLE
        elif means in CANCELS:
            is_so, may_be = escrow.state is State.CANCELLED, escrow.state in DELIVERABLE
        else:
            return
        if is_so != (status == "settled") or (may_be and not is_so):
            self._trace.violate(
                f"{subject} ends {status}, AtaraPay holds it as {escrow.state}, the shop means {means}",
                "told_in_the_end",
            )


def _form(request: HttpRequest) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))
