"""Running scenarios: what a difference looks like, what breaks what, and that time passes only in runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.config import account_from, worker_settings_from
from worker.core.commands import COMMANDS
from worker.model.account import Account
from worker.providers.sequra.options import SequraAccount
from worker.tools.scenario import SETTINGS, run_file, run_files
from worker.tools.scenario.play import play
from worker.tools.scenario.steps import EventStep, RunStep, Scenario
from worker.tools.scenario.world import World

LINES = [{"reference": "shirt", "name": "Shirt", "quantity": 2, "unit_price_minor": 500, "total_minor": 1000}]
CONFIRMED = {"event": {"type": "order.confirmed", "subject": "acme/1", "data": {"currency": "EUR", "lines": LINES}}}
SHIPPED = {
    "event": {
        "type": "order.items_shipped",
        "subject": "acme/1",
        "data": {"shipment_id": "s1", "lines": [{"line_id": "shirt", "quantity": 1}]},
    }
}
URL = "https://sandbox.sequrapi.com/merchants/acme/orders/1"


def differences(tmp_path: Path, *steps: Any, **members: Any) -> list[str]:
    """What a scenario of these steps says, the steps that it fails at before each."""
    path = tmp_path / "S1.json"
    path.write_text(json.dumps({"steps": steps, **members}), encoding="utf-8")
    return [
        f"{failure.step} {failure.kind}: {line}" for failure in run_file(path).failures for line in failure.differences
    ]


def test_nothing_to_say(tmp_path: Path):
    """What is as expected says nothing."""
    assert differences(tmp_path, CONFIRMED, SHIPPED, {"run": "1s"}, {"expect_requests": [{"url": URL}]}) == []


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (
            {"expect_requests": [{"body": {"order": {"shipped_cart": {"order_total_with_tax": 499}}}}]},
            [
                "requests[0].body.order.shipped_cart.order_total_with_tax: expected 499, got 500",
                f"  0: after 0.000 s PUT {URL} 500 | 500",
            ],
        ),
        ({"expect_no_request": True}, ["expected 0 requests, got 1", f"  0: after 0.000 s PUT {URL} 500 | 500"]),
        (
            {"expect_requests": [{"before": "1s", "after": "1s"}]},
            ["requests[0].after: expected 1s or later, got 0.000 s", f"  0: after 0.000 s PUT {URL} 500 | 500"],
        ),
        (
            {"expect_requests": [{"method": "GET"}], "any_order": True},
            ['requests[0].method: expected "GET", got "PUT"', f"  0: after 0.000 s PUT {URL} 500 | 500"],
        ),
        (
            {"expect_requests": {"at_least": 2, "at_most": 3}},
            ["expected at least 2 and at most 3 requests, got 1", f"  0: after 0.000 s PUT {URL} 500 | 500"],
        ),
        (
            {"expect_order": {"subject": "acme/1", "status": "owed", "shipped": [{"quantity": 2}]}},
            [
                'acme/1: status: expected "owed", got "settled"',
                "acme/1: shipped[0].quantity: expected 2, got 1",
            ],
        ),
        (
            {"expect_order": {"subject": "acme/2", "status": "settled"}},
            [
                'acme/2: status: expected "settled", got "unconfirmed"',
                "acme/2: its reason: no event of it was accepted",
            ],
        ),
        (
            {"expect_dead_letters": [{"reason": "not_json"}]},
            ["expected 1 dead letters, got 0"],
        ),
        ({"expect_held": {"1": None}}, ['1: expected null, got {"shipped_minor": 500, "unshipped_minor": 500}']),
        ({"expect_held": {"2": {"shipped_minor": 5}}}, ['2: expected {"shipped_minor": 5}, got null']),
    ],
)
def test_differences(tmp_path: Path, expectation, said):
    """Each expectation says what was expected, and what there is."""
    found = differences(tmp_path, CONFIRMED, SHIPPED, {"run": "1s"}, expectation)
    assert found == [f"4 {next(iter(expectation))}: {line}" for line in said]


def test_dead_letters_in_order(tmp_path: Path):
    """Dead letters are counted since the last look, and compared in the order of the log."""
    bad = [{"record": {"key": "k", "value": "{"}}, {"record": {"key": None, "value": "{}"}}, {"run": "1s"}]
    seen = [{"reason": "not_json"}, {"reason": "no_key", "detail_contains": ["key", "zzz"]}]
    first, *rest = differences(tmp_path, *bad, {"expect_dead_letters": seen}, {"expect_dead_letters": []})
    assert first.startswith('4 expect_dead_letters: dead_letters[1].detail: expected a text with "zzz", got "')
    assert [line.split()[3] for line in rest] == ["not_json:", "no_key:"]


@pytest.mark.parametrize("text", ["order_settled", "nowhere", "not_json", "x-dlq-reason", "acme/1"])
def test_log_lacks(tmp_path: Path, text):
    """What was logged, what labels a metric and what stands in a dead letter's headers is found."""
    steps = [CONFIRMED, SHIPPED, {"record": {"key": "k", "value": "{"}}, {"run": "1s"}, {"restart": "crash"}]
    found = differences(tmp_path, *steps, {"expect_log_lacks": [text]})
    assert bool(found) is (text != "nowhere")


def test_not_idle(tmp_path: Path):
    """A run that does not come to rest says who is owed, and why."""
    steps = [CONFIRMED, SHIPPED, {"answers": [{"status": 401, "text": "who are you", "forever": True}]}]
    [first, second] = differences(tmp_path, *steps, {"run": "idle", "within": "1h"})
    assert first == "4 run: not idle within 1h"
    assert second.startswith("4 run: acme/1 is owed: account acme paused: 401: who are you")


def test_operators_err(tmp_path: Path):
    """What an operator asks in vain is a failure of its step, and the scenario goes on."""
    steps = [{"operator": {"release": "acme/9"}}, {"operator": {"resume_account": "nobody"}}]
    found = differences(tmp_path, *steps, {"expect_held": {"1": {}}})
    assert [line.partition(":")[0] for line in found] == ["1 operator", "2 operator", "3 expect_held"]


def account(**members: Any) -> Account:
    """An account as no configuration would let it be."""
    values = {"provider": "sequra", "merchant_id": "acme", "base_url": URL, "username": "u", "password": "p"}
    return SequraAccount(**{"name": "acme"} | values | members)


def test_a_worker_that_breaks():
    """An exception in the worker is a failure of the scenario, with the end of its traceback."""
    steps = [EventStep(CONFIRMED["event"]), EventStep(SHIPPED["event"]), RunStep("1s"), RunStep("1s")]
    scenario = Scenario("S1", steps)
    [failure] = play(scenario, {"acme": account(concurrency="8")}, worker_settings_from({}), 1)
    assert (failure.step, failure.kind) == (3, "run")
    assert failure.differences[0].startswith("the worker crashed: InvariantError")
    assert failure.differences[-1] == "TypeError: '<' not supported between instances of 'int' and 'str'"


def test_a_worker_that_does_not_start():
    """The same when there is no worker at all."""
    [failure] = play(Scenario("S1", []), {"acme": account(provider="none")}, worker_settings_from({}), 1)
    assert (failure.step, failure.kind) == (0, "start")
    assert failure.differences[-1] == "KeyError: 'none'"


def test_time_passes_in_runs_only():
    """Operators and restarts take no virtual time, and an hour's run takes an hour."""
    accounts = {"acme": account_from("acme", {}, scenario=True)}
    with World(accounts, worker_settings_from(SETTINGS), 2) as world:
        world.start()
        world.put(b"1", json.dumps(_full(CONFIRMED)).encode(), [], world.wall_ms)
        world.run_for(3600.0)
        assert world.now == pytest.approx(3600.0, abs=1e-3)
        for _ in range(3):
            world.operate(COMMANDS["resend"], "acme/1")
            world.restart("clean")
            world.restart("crash")
        assert world.now == pytest.approx(3600.0, abs=1e-3)
        world.run_for(0.0)
        assert world.now == pytest.approx(3600.0, abs=1e-3)
        assert world.run_idle(7200.0)
        assert world.now < 3600.0 + 60.0


def _full(step: Any) -> dict[str, Any]:
    event: dict[str, Any] = step["event"]
    return {"specversion": "1.0", "id": "e", "source": "/t", "time": "2026-01-01T00:00:00Z"} | event


def test_times_of_records(tmp_path: Path):
    """An event's record has the event's own time, a raw one the present: a day ahead of that is too far."""
    time = {"time": "2026-01-02T00:00:01Z"}
    event = {"event": {**CONFIRMED["event"], **time}}
    record = {"record": {"key": "k", "value": json.dumps(_full(CONFIRMED) | time)}}
    assert differences(tmp_path, event, {"run": "1s"}, {"expect_dead_letters": []}) == []
    refused = {"expect_dead_letters": [{"detail_contains": "$.time"}]}
    assert differences(tmp_path, record, {"run": "1s"}, refused) == []
    assert differences(tmp_path, {"run": "1s"}, record, {"run": "1s"}, {"expect_dead_letters": []}) == []


@pytest.mark.parametrize(("id_", "status"), [("e2", "settled"), ("e3", "inconsistent")])
def test_default_ids(tmp_path: Path, id_, status):
    """Ids count event steps only: the second event is e2 though a record is before it."""
    record = {"record": {"key": "k", "value": None}}
    units = {"shipment_id": "s2", "lines": [{"line_id": "no", "quantity": 1}]}
    again = {"event": {**SHIPPED["event"], "id": id_, "data": units}}
    expected = {"expect_order": {"subject": "acme/1", "status": status}}
    assert differences(tmp_path, CONFIRMED, record, SHIPPED, again, {"run": "1s"}, expected) == []


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """0, 1 or 2; what can be run is run, and reported in each of the forms."""
    good, bad, none = (tmp_path / name for name in ("good.json", "bad.json", "none.json"))
    good.write_text('{"title": "all is well", "steps": [{"run": "1s"}]}', encoding="utf-8")
    bad.write_text('{"steps": [{"expect_held": {"1": {}}}]}', encoding="utf-8")
    none.write_text('{"steps": [{"rnu": "1s"}]}', encoding="utf-8")
    assert run_files([good]) == 0
    assert "ok   good  all is well" in capsys.readouterr().out
    assert run_files([good, bad], junit=tmp_path / "report.xml") == 1
    assert "FAIL bad" in capsys.readouterr().out
    assert '<testsuite name="cartsync scenario" tests="2" failures="1"' in (tmp_path / "report.xml").read_text()
    assert run_files([tmp_path], as_json=True) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["passed"], said["failed"], len(said["unreadable"])) == (1, 1, 1)
    assert run_files([tmp_path / "missing", good]) == 2
    assert "ok   good" in capsys.readouterr().out
    assert run_files([good], junit=tmp_path / "no" / "report.xml") == 2


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"accounts": {"acme": {"provider": "sequre"}}}, "did you mean sequra?"),
        ({"accounts": {"acme": {"marchant_id": "x"}}}, "unknown setting [accounts.acme] marchant_id"),
        ({"settings": {"setle": "1s"}}, "did you mean settle?"),
        ({"settings": {"settle": 30}}, "a duration needs a unit"),
        ({"settings": {"attempt_deadline": "30s"}}, "attempt_deadline (30s) must be shorter than lease"),
        ({"settings": {"partitions": 0}}, "settings.partitions: expected an integer from 1"),
        ({"settings": {"partitioner": "random"}}, "settings: Invalid enum value 'random' - at `$.partitioner`"),
        (
            {"settings": {"partitions": 2}, "steps": [{"record": {"key": "k", "value": "", "partition": 2}}]},
            "step 1: partition: expected an integer from 0 to 1",
        ),
        (
            {"steps": [{"event": {}, "partition": -1}]},
            "step 1: partition: expected an integer from 0 to 0",
        ),
    ],
)
def test_accounts_and_settings_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], members, said):
    """What the configuration would refuse, the scenario's accounts and settings are refused for as well."""
    path = tmp_path / "S1.json"
    path.write_text(json.dumps({"steps": [], **members}), encoding="utf-8")
    assert run_files([path]) == 2
    assert said in capsys.readouterr().out


def test_settings_count(tmp_path: Path):
    """A setting of the scenario is the worker's."""
    steps = [CONFIRMED, SHIPPED, {"answers": [{"fault": "timeout_lost"}]}, {"run": "idle", "within": "1m"}]
    bounds = {"expect_requests": [{}, {"after": "5s", "before": "5.5s"}]}
    assert differences(tmp_path, *steps, bounds, settings={"attempt_deadline": "2s", "settle": "3s"}) == []
