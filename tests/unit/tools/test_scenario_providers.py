"""Scenarios with providers that remember, and callbacks: what goes by itself, what is held back, what a difference says."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.tools.scenario import run_file, run_files

Json = dict[str, Any]
ACCOUNTS = {
    "hats": {"provider": "qliro"},
    "caps": {"provider": "qliro"},
    "escrow": {"provider": "atarapay"},
    "acme": {},
}
HAT = {"reference": "hat", "quantity": 2, "unit_price_minor": 1000}
URL = "https://pago.qit.nu/checkout/adminapi/v2/"
PLACED = {"checkout": {"hats/A14": {"order": 7, "items": [HAT]}}}
PAID = {"checkout": {"escrow/3001": {"order": 3021, "amount_minor": 2000}}}
RUN = {"run": "10s"}


def event(kind: str, data: Json, subject: str = "hats/A14") -> Json:
    """A step with an event of the shop's."""
    return {"event": {"type": f"order.{kind}", "subject": subject, "data": data}}


def confirmed(subject: str = "hats/A14", number: str = "7") -> Json:
    """Two hats, and what the provider calls the order."""
    line = HAT | {"name": "Hat", "total_minor": 2000}
    return event("confirmed", {"currency": "SEK", "lines": [line], "references": {"provider": number}}, subject)


SHIPPED = event("items_shipped", {"shipment_id": "s1", "lines": [{"line_id": "hat", "quantity": 1}]})
PUSHED: Json = {"push": {"order": "hats/A14"}}
STATUS = {"account": "hats", "purpose": "checkout-status", "reference": "A14"}
COMPLETED = {"OrderId": 7, "Status": "Completed", "Timestamp": "2025-12-31T00:00:00"}


def differences(tmp_path: Path, *steps: Json, **members: Any) -> list[str]:
    """What a scenario of these steps says, the steps that it fails at before each."""
    path = tmp_path / "S1.json"
    path.write_text(json.dumps({"accounts": ACCOUNTS, "steps": steps} | members), encoding="utf-8")
    return [
        f"{failure.step} {failure.kind}: {line}" for failure in run_file(path).failures for line in failure.differences
    ]


def test_pushes_are_held_until_they_are_said(tmp_path: Path) -> None:
    """Unless they go by themselves, as soon as a command has ended; switched off, they wait again."""
    owed, settled = ({"expect_order": {"subject": "hats/A14", "status": each}} for each in ("owed", "settled"))
    start = (PLACED, confirmed(), SHIPPED)
    assert differences(tmp_path, *start, {"run": "50s"}, owed, PUSHED, {"run": "1s"}, settled) == []
    assert differences(tmp_path, *start, {"pushes": "auto"}, {"run": "2s"}, settled) == []
    assert differences(tmp_path, *start, {"pushes": "auto"}, {"pushes": "hold"}, {"run": "50s"}, owed) == []


def test_ends_of_commands(tmp_path: Path) -> None:
    """Each is of one command that was taken; afterwards all is as usual."""
    ends = {"ends_for": {"hats/A14": [{"after": "30s", "status": "Error", "words": "Declined"}]}}
    refused = {"answers": [{"status": 500, "method": "POST"}]}
    before, after = ({"expect_provider": {"hats/A14": {"pending": count}}} for count in (0, 1))
    steps = (PLACED, confirmed(), SHIPPED, ends, refused, {"pushes": "auto"}, {"run": "20s"}, before, {"run": "15s"})
    assert (
        differences(
            tmp_path, *steps, after, {"run": "30m"}, {"expect_provider": {"hats/A14": {"captured": {"hat": 1}}}}
        )
        == []
    )


def test_a_restart_forgets_nothing_of_the_provider(tmp_path: Path) -> None:
    """A new worker finds there what the old one did."""
    steps = (PLACED, confirmed(), SHIPPED, RUN, {"restart": "crash"}, {"run": "2m"})
    assert differences(tmp_path, *steps, {"expect_provider": {"hats/A14": {"captured_minor": 1000}}}) == []


def test_accounts_at_one_address(tmp_path: Path) -> None:
    """The account that holds the order answers; one of which nothing was checked out holds nothing."""
    other = {"checkout": {"caps/B1": {"order": 8, "items": [HAT]}}}
    looks = {"expect_requests": [{"method": "GET"}, {"method": "POST"}, {"method": "GET"}]}
    steps = (other, PLACED, confirmed(), SHIPPED, {"pushes": "auto"}, RUN, looks)
    shown = {"caps/B1": {"captured_minor": 0}, "hats/A14": {"captured_minor": 1000, "reserved_minor": 1000}}
    assert differences(tmp_path, *steps, {"expect_provider": shown}) == []
    unknown = (confirmed("hats/A15", "99"), event("cancelled", {}, "hats/A15"), RUN)
    refused = {"expect_requests": [{"url": f"{URL}orders/99"}]}
    found = {"expect_order": {"subject": "hats/A15", "reason_contains": "404: ORDER_NOT_FOUND"}}
    assert differences(tmp_path, PLACED, *unknown, refused, found) == []


def test_words_and_notifications(tmp_path: Path) -> None:
    """AtaraPay's side takes words, and notifies the one address of the seller."""
    cancelled = event("cancelled", {}, "escrow/3001")
    form = {"expect_requests": [{"form": {"order": "3021", "status": "cancelled"}}]}
    shown = {"expect_provider": {"escrow/3001": {"state": "Cancelled", "words": ["cancelled"]}}}
    steps = (PAID, confirmed("escrow/3001", "3021"), cancelled, RUN, form, shown)
    pushed = {"push": {"order": "escrow/3001"}, "expect_answer": {"status": 200, "json": {"status": "success"}}}
    assert differences(tmp_path, *steps, pushed) == []
    [said, *_] = differences(tmp_path, *steps[:4], {"expect_requests": [{"form": {"status": "delivered"}}]})
    assert said == '5 expect_requests: requests[0].form.status: expected "delivered", got "cancelled"'


def test_callbacks_wait_for_the_next_run(tmp_path: Path) -> None:
    """They lie in the log behind what came before, and are taken in one batch with it."""
    called = {"callback": STATUS | {"body": COMPLETED}}
    unheard: Json = {"expect_results": []}
    heard = {"expect_results": [{"type": "provider.payment_state"}, {"data": {"status": "settled", "revision": 2}}]}
    assert differences(tmp_path, confirmed(), called, unheard, RUN, heard) == []


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"body": COMPLETED}, 200),
        ({"text": json.dumps(COMPLETED)}, 200),
        ({"text": "{"}, 400),
        ({"text": {"repeat": ["x", 300_000]}}, 413),
        ({"body": COMPLETED, "headers": {"content-encoding": "gzip"}}, 415),
        ({"form": {"OrderId": "7"}}, 400),
        ({}, 400),
        ({"body": COMPLETED, "token": "wrong"}, 401),
        ({"body": COMPLETED, "token": "missing"}, 401),
        ({"body": COMPLETED, "token": "of_another_order"}, 401),
        ({"body": COMPLETED, "account": "nobody"}, 401),
        ({"body": COMPLETED, "kafka": "away"}, 503),
    ],
)
def test_callbacks_are_answered_by_the_receiver(tmp_path: Path, content: Json, status: int) -> None:
    """Whatever comes: by the code that answers in production."""
    called = {"callback": STATUS | content, "expect_answer": {"status": status, "within": "4s"}}
    assert differences(tmp_path, called) == []
    assert differences(tmp_path, called | {"expect_answer": {"status": 299}}) == [
        f"1 callback: status: expected 299, got {status}"
    ]


def test_labels_of_the_receiver_are_looked_through(tmp_path: Path) -> None:
    """What must not be said is not said in its metrics either."""
    [said] = differences(tmp_path, {"callback": STATUS}, {"expect_log_lacks": ["saved-card"]})
    assert said == '2 expect_log_lacks: "saved-card" is in a metric label: "saved-card"'


CANCEL = {"act": {"hats/A14": {"cancel": True}}}
MORE = {"act": {"hats/A14": {"capture": [HAT | {"quantity": 3}]}}}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((PUSHED,), "1 push: no checkout as hats/A14"),
        ((PLACED, PUSHED), "2 push: hats/A14: there is nothing to push"),
        ((PLACED, {"push": {"order": "hats/A14", "again": True}}), "2 push: hats/A14: nothing was pushed yet"),
        ((PLACED, PLACED), "2 checkout: order 7, or A14, was placed before"),
        ((PAID, PAID), "2 checkout: order 3021, or 3001, was placed before"),
        ((CANCEL,), "1 act: no checkout as hats/A14"),
        ((PLACED, {"act": {"hats/A15": {"cancel": True}}}), "2 act: no checkout as A15"),
        ((PAID, {"act": {"escrow/3002": "accept"}}), "2 act: no checkout as 3002"),
        ((PLACED, CANCEL, CANCEL), "3 act: Qliro refuses it: Evaluation, no items left"),
        ((PLACED, MORE), "2 act: Qliro refuses it: Evaluation, quantity of hat exceeds what is left"),
        (
            (PLACED, {"act": {"hats/A14": {"capture": [HAT | {"unit_price_minor": 1}]}}}),
            "2 act: there is no hat at 1 in the newest reservation",
        ),
        ((PLACED, {"act": {"hats/A14": "accept"}}), "2 act: expected one of capture, reserve, cancel at Qliro"),
        ((PAID, {"act": {"escrow/3001": {"cancel": True}}}), "2 act: expected one of deliver, accept, reject"),
        (
            (PAID, {"act": {"escrow/3001": "accept"}}),
            "2 act: accept cannot be done now: the order is Pending",
        ),
        ((PAID, {"ends_for": {"escrow/3001": [{}]}}), "2 ends_for: AtaraPay applies every command at once"),
        ((PLACED, {"ends_for": {"hats/A15": [{}]}}), "2 ends_for: no checkout as A15"),
        (({"expect_provider": {"hats/A14": {}}},), "1 expect_provider: no checkout as hats/A14"),
        (
            (PLACED, {"expect_provider": {"hats/A14": {"reserved": {"hat": 1}}}}),
            "2 expect_provider: hats/A14.reserved.hat: expected 1, got 2",
        ),
        (
            (PLACED, {"expect_provider": {"hats/A14": {"words": []}}}),
            "2 expect_provider: hats/A14.words: expected [], got nothing",
        ),
        (
            ({"callback": STATUS | {"body": COMPLETED}, "expect_answer": {"json": {"CallbackResponse": "no"}}},),
            '1 callback: json.CallbackResponse: expected "no", got "received"',
        ),
        (
            ({"callback": STATUS | {"body": COMPLETED, "kafka": "away"}, "expect_answer": {"within": "1s"}},),
            "1 callback: within: expected 1s or sooner, got 4.000 s",
        ),
        (
            (confirmed(), RUN, {"expect_order": {"subject": "hats/A14", "provider": {"order": "7"}}}),
            '3 expect_order: hats/A14: provider: expected {"order": "7"}, got null',
        ),
    ],
)
def test_differences(tmp_path: Path, steps: tuple[Json, ...], said: str) -> None:
    """What does not fit is a failure of its step, and says what there is."""
    [first, *_] = differences(tmp_path, *steps)
    assert first.startswith(said)


def test_results_that_differ(tmp_path: Path) -> None:
    """Exactly these since the last look, in their order unless it is said to mean nothing."""
    told = (confirmed(), RUN, {"callback": STATUS | {"body": COMPLETED}}, RUN)
    first, second = ({"type": "provider.payment_state"}, {"type": "cartsync.order_changed", "sequence": "2"})
    before = {"expect_results": [{"sequence": "1"}]}
    assert differences(tmp_path, *told[:2], before, *told[2:], {"expect_results": [first, second]}) == []
    swapped: Json = {"expect_results": [second, first]}
    [said, *_] = differences(tmp_path, *told[:2], before, *told[2:], swapped)
    assert said == '6 expect_results: results[0].type: expected "cartsync.order_changed", got "provider.payment_state"'
    assert differences(tmp_path, *told[:2], before, *told[2:], swapped | {"any_order": True}) == []
    [said, missing, shown] = differences(tmp_path, *told[:2], {"expect_results": [{}, {"subject": "x/1"}]})
    assert said == "3 expect_results: results: expected 2 values, got 1"
    assert missing == '3 expect_results: results: missing {"subject": "x/1"}'
    assert shown.startswith('3 expect_results:   0: cartsync.order_changed hats/A14 {"status": "settled"')


def test_results_with_reasons(tmp_path: Path) -> None:
    """A setting of the results, of the worker's file."""
    refused = (confirmed("acme/1"), event("payment_state_changed", {"payment_state": "refused"}, "acme/1"), RUN)
    told = {"expect_results": [{"data": {"status": "refused", "reason": "the payment was refused"}}]}
    assert differences(tmp_path, *refused, told, settings={"results_with_reasons": True}) == []
    without = {"expect_results": [{"data": {"status": "refused", "$absent": ["reason"]}}]}
    assert differences(tmp_path, *refused, without) == []


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"steps": [{"checkout": {"A14": {"order": 7}}}]}, "step 1: checkout: A14: expected account/reference"),
        ({"steps": [{"checkout": {"hat/A14": {"order": 7}}}]}, "hat/A14: expected account/reference, of an account of"),
        ({"steps": [RUN, {"checkout": {"acme/1": {"order": 7}}}]}, "step 2: checkout: acme/1: there is none at sequra"),
        ({"steps": [{"checkout": {"hats/A14": {"order": 7}}}]}, "hats/A14: expected items, without amount_minor"),
        ({"steps": [{"checkout": {"hats/A14": {"order": "7", "items": [HAT]}}}]}, "hats/A14: order: expected a number"),
        ({"steps": [{"checkout": {"escrow/1": {"order": 7}}}]}, "escrow/1: expected amount_minor at AtaraPay"),
        (
            {"steps": [{"checkout": {"escrow/1": {"order": 7, "amount_minor": 1, "items": [HAT]}}}]},
            "escrow/1: expected amount_minor, without items",
        ),
        (
            {"steps": [], "settings": {"results_with_reasons": 1}},
            "settings.results_with_reasons: expected true or false",
        ),
        ({"steps": [], "accounts": {"hats": {"provider": "qliro", "callback_secrets": ["x"]}}}, "callback_secrets"),
        (
            {
                "steps": [],
                "accounts": {"hats": {"provider": "qliro", "lookups": {"url": "https://x", "token": "t" * 16}}},
            },
            "[accounts.hats.lookups] default",
        ),
    ],
)
def test_what_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], members: Json, said: str) -> None:
    """What does not fit an account is an error of the file."""
    path = tmp_path / "S1.json"
    path.write_text(json.dumps({"accounts": ACCOUNTS} | members), encoding="utf-8")
    assert run_files([path]) == 2
    assert said in capsys.readouterr().out
