"""Random stories against AtaraPay's side, with everything that may go wrong: every call is right, and so is the end."""

import random
from collections import Counter

import pytest

from tests.shops.events import EventSpec, cancelled, delivered, items_cancelled, refunded, retracted, returned, shipped
from tests.unit.providers.atarapay.play import Play
from tests.unit.providers.atarapay.reported import confirmation
from worker.providers.atarapay.wire import BEYOND_DELIVERY, State
from worker.sandbox.atarapay.escrow import Act
from worker.sandbox.atarapay.troubles import Trouble

SEEDS = 25
"""Of each story."""


class Story:
    """What a shop and a buyer do, each thing some time after the one before; `means`: what it comes to."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.play = Play(seed)
        self.acts_done: Counter[Act] = Counter()

    def wait(self) -> None:
        """Nothing, or long enough for everything to be told."""
        self.play.run(self.chance.choice([0.0, 1.0, 20.0, 300.0]))

    def tell(self, *specs: EventSpec, means: str = "") -> None:
        """Several things in any order; only the last makes what they mean so."""
        told = list(specs)
        self.chance.shuffle(told)
        for number, each in enumerate(told, start=1):
            self.play.means = means if number == len(told) else self.play.means
            self.play.tell(each)
            self.wait()

    def act(self, act: Act) -> bool:
        """Something is done there, if it can be done."""
        done = self.play.act(act)
        self.acts_done[act] += done
        self.wait()
        return done

    def until(self, *states: State) -> bool:
        """Waits until the escrow is in one of these; False: it never was."""
        for _ in range(60):
            if self.play.escrow.state in states:
                return True
            self.play.run(60.0)
        return False

    def end(self) -> None:
        """Calm, so that all can come to an end; then what holds of every story."""
        self.play.calm()
        play, escrow = self.play, self.play.escrow
        means, status = play.means, play.status
        assert status in ("settled", "parked", "inconsistent"), (status, play.record.reason, play.auditor.calls)
        ended = escrow.state is State.CANCELLED and not any(word != "delivered" for word in escrow.words)
        if ended and means not in ("cancelled", "buyer_cancel"):
            # The cancellation that was made there is a fact of the order now.
            cancellation = play.record.facts.cancellation
            assert cancellation is not None, play.auditor.calls
            assert cancellation.by == "provider"
        elif means == "delivered":
            assert escrow.state in BEYOND_DELIVERY | {State.SECOND}, (escrow, play.auditor.calls)
            assert status == "settled"
        elif means in ("cancelled", "buyer_cancel"):
            assert (escrow.state is State.CANCELLED) is (status == "settled"), (escrow, play.record.reason)
        assert play.known.is_open is False


def confirm(story: Story) -> None:
    """Every story begins so."""
    story.tell(confirmation())


def deliver(story: Story) -> None:
    """All of it, in two parcels."""
    story.tell(shipped("s1", hat=1), shipped("s2", hat=1, shoe=1))
    story.tell(delivered("s1"), delivered("s2"), means="delivered")


def test_delivered() -> None:
    """One word, whatever goes wrong, taken once."""
    for seed in range(SEEDS):
        story = Story(seed)
        confirm(story)
        deliver(story)
        story.act(story.chance.choice([Act.ACCEPT, Act.REJECT, Act.CANCEL_AS_BUYER, Act.DELIVER]))
        story.end()
        assert len(story.play.escrow.words) <= 1
        if not story.acts_done[Act.CANCEL_AS_BUYER] and not story.acts_done[Act.DELIVER]:
            assert story.play.escrow.words == ["delivered"]
            assert story.play.status == "settled"


def rejected(seed: int) -> Story:
    """Delivered, rejected, and a second attempt agreed on."""
    story = Story(seed)
    confirm(story)
    deliver(story)
    assert story.until(State.AWAITING)
    assert story.act(Act.REJECT)
    assert story.act(Act.AGREE_SECOND_ATTEMPT)
    return story


def test_second_attempt() -> None:
    """Rejected, agreed on, delivered again: two words, and never a third."""
    told_twice = 0
    for seed in range(SEEDS):
        story = rejected(seed)
        story.wait()
        if story.chance.random() < 0.5:
            story.play.means = ""
            story.tell(returned("r1", hat=2, shoe=1))
            story.tell(shipped("s3", hat=2, shoe=1))
            story.tell(delivered("s3"), means="delivered")
        else:
            story.tell(delivered("s2", "2026-03-08T10:00:00Z"), means="delivered")
        story.end()
        assert story.play.escrow.words in (["delivered"], ["delivered", "delivered"])
        told_twice += len(story.play.escrow.words) == 2
        assert story.play.status == "settled"
    assert told_twice > 0.9 * SEEDS  # after a kill, what its word was for is a guess


def test_second_attempt_without_a_delivery() -> None:
    """Nothing newer was delivered: AtaraPay is not told again."""
    for seed in range(SEEDS):
        story = rejected(seed)
        story.end()
        assert story.play.escrow.words == ["delivered"]


@pytest.mark.parametrize(
    ("word", "specs"),
    [
        ("cancelled", [cancelled()]),
        ("buyer_cancel", [cancelled(by="shopper")]),
        ("cancelled", [items_cancelled("c1", hat=2), items_cancelled("c2", shoe=1)]),
    ],
    ids=["C48-seller", "C48-buyer", "items"],
)
def test_cancelled(word: str, specs: list[EventSpec]) -> None:
    """One word; when the buyer cancels there meanwhile, perhaps none."""
    for seed in range(SEEDS):
        story = Story(seed)
        confirm(story)
        if story.chance.random() < 0.3:
            story.act(Act.CANCEL_AS_BUYER)
        story.tell(*specs, means=word)
        story.end()
        assert story.play.escrow.state is State.CANCELLED
        assert story.play.escrow.words in ([word], []) if story.acts_done[Act.CANCEL_AS_BUYER] else [word]


def test_cancelled_there() -> None:
    """C51: nothing is sent back, and the order is cancelled for the shop, too."""
    for seed in range(SEEDS):
        story = Story(seed)
        confirm(story)
        assert story.act(story.chance.choice([Act.CANCEL_AS_BUYER, Act.CANCEL_AS_SELLER]))
        story.end()
        assert set(story.play.auditor.calls) == {"order"}
        order = story.play.assessment.order
        assert order is not None
        assert (order.unshipped.total_minor, story.play.status) == (0, "settled")


def test_cancelled_there_while_goods_are_under_way() -> None:
    """Somebody has to look: the facts contradict each other."""
    for seed in range(SEEDS // 5):  # it is read again and again until somebody does: each takes long
        story = Story(seed)
        confirm(story)
        story.tell(shipped("s1", hat=2, shoe=1))
        assert story.act(Act.CANCEL_AS_BUYER)
        story.tell(delivered("s1"), means="delivered")
        story.end()
        assert story.play.escrow.words == []
        assert story.play.assessment.state == "inconsistent"


def test_changed_minds() -> None:
    """A cancellation that is taken back: told before, it stands; else the delivery is told.

    That it was told is not known after a kill: then it is one that was made there.
    """
    ends: Counter[str] = Counter()
    for seed in range(SEEDS):
        story = Story(seed)
        confirm(story)
        story.tell(cancelled(), means="cancelled")
        story.tell(retracted(cancelled=True))
        deliver(story)
        story.play.calm()
        ends[story.play.status] += 1
        words = story.play.escrow.words
        ended = [(["cancelled"], "parked"), (["cancelled"], "inconsistent"), (["delivered"], "settled")]
        assert (words, story.play.status) in ended
    assert min(ends["parked"], ends["settled"]) > ends["inconsistent"]


def test_no_word_for_it() -> None:
    """C53: parked, whatever AtaraPay says meanwhile; `delivered` at most, when it was owed before."""
    for seed in range(SEEDS):
        story = Story(seed)
        confirm(story)
        deliver(story)
        story.act(Act.ACCEPT)
        story.play.means = ""
        story.tell(story.chance.choice([returned("r1", hat=1), refunded("f1", 100)]))
        story.end()
        assert story.play.escrow.words in ([], ["delivered"])
        assert story.play.status == "parked"
        assert story.play.record.reason.startswith("unsupported: ")


def test_disputes() -> None:
    """Shown, and nothing told."""
    for seed in range(SEEDS):
        story = Story(seed)
        confirm(story)
        deliver(story)
        assert story.until(State.AWAITING)
        for act in (Act.REJECT, Act.DISPUTE, Act.ESCALATE, story.chance.choice([Act.DROP_DISPUTE, Act.REFUND])):
            assert story.act(act)
        story.end()
        assert story.play.escrow.words == ["delivered"]
        assert story.play.known.state == story.play.escrow.state
        assert story.play.status == "settled"


def test_everything_goes_wrong_somewhere() -> None:
    """The stories meet each trouble, so that none of them is tested in vain."""
    met: set[Trouble] = set()
    for seed in range(20 * SEEDS):
        story = Story(seed)
        confirm(story)
        deliver(story)
        story.end()
        met |= set(story.play.troubles)
        if met == set(Trouble) - {Trouble.REDIRECT}:
            return
    raise AssertionError(met)
