"""Reading scenario files: what is accepted, and how an error reads."""

import json
from pathlib import Path

import pytest

from worker.errors import UsageError
from worker.tools.scenario.files import answers_of, find_files, read_scenario, read_step
from worker.tools.scenario.steps import AnswersStep, EventStep, ExpectRequestsStep, RecordStep


@pytest.mark.parametrize(
    "step",
    [
        {"event": {"type": "order.confirmed"}},
        {"event": {}, "key": None},
        {"record": {"key": None, "value": None}},
        {"record": {"value_base64": "AAE="}},
        {"record": {"value": {"repeat": ["x", 3]}, "headers": {"a": "b"}}},
        {"answers": []},
        {"answers": [{"status": 503, "headers": {"Retry-After": "3"}, "text": {"repeat": ["x", 3]}, "times": 2}]},
        {"answers": [{"status": 409, "json": None, "forever": True}]},
        {"answers": [{"fault": "timeout_applied", "applied_after": "20s"}]},
        {"answers_for": {"1001": [{"fault": "refused", "forever": True}]}},
        {"run": "10s"},
        {"run": "500ms"},
        {"run": "idle", "within": "2h"},
        {"restart": "clean"},
        {"operator": {"resume_account": "acme"}},
        {"expect_requests": []},
        {
            "expect_requests": [
                {"method": "PUT", "url": {"$regex": "x"}, "headers": {"A": "b"}, "body": {}, "after": "1s"}
            ]
        },
        {"expect_requests": {"at_least": 1, "at_most": 2}},
        {"expect_requests": [{}, {}], "any_order": True},
        {"expect_no_request": True},
        {"expect_order": {"subject": "acme/1", "status": "owed", "reason_contains": ["a"], "shipped": [{}]}},
        {"expect_dead_letters": [{}, {"reason": "not_json", "detail_contains": "$"}]},
        {"expect_held": {"1": None, "2": {"shipped_minor": 1}}},
        {"expect_log_lacks": ["secret"]},
        {"answers": [{"status": 502, "applied": True, "method": "POST"}]},
        {"checkout": {"hats/A14": {"order": 1, "items": [{"reference": "hat", "unit_price_minor": 5}]}}},
        {"checkout": {"escrow/3001": {"order": "3021", "amount_minor": 5}}},
        {"act": {"escrow/3001": "cancel_as_buyer", "hats/A14": {"cancel": True}}},
        {"ends_for": {"hats/A14": [{}, {"after": "5s", "status": "Error", "code": "X", "words": "y"}]}},
        {"pushes": "auto"},
        {"push": {"order": "hats/A14", "again": True, "times": 3}, "expect_answer": {"status": 200}},
        {"callback": {"account": "hats", "purpose": "p", "reference": "A14", "body": None, "token": "missing"}},
        {"callback": {"account": "escrow", "purpose": "p", "form": {"a": "b"}}, "expect_answer": {"within": "5s"}},
        {"expect_requests": [{"form": {"a": "b"}}]},
        {"expect_order": {"subject": "a/1", "provider": {"delivery": {"state": "rejected"}}}},
        {"expect_provider": {"hats/A14": {"captured": {"$exact": {"hat": 1}}, "pending": 0, "cancelled": False}}},
        {"expect_results": [{"data": {"status": "owed"}}], "any_order": True},
    ],
)
def test_steps_of_the_contract(step):
    """Every step that the contract has is read."""
    assert read_step(step, "f") is not None


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ([], "f: expected an object, got a list"),
        ({}, "got nothing"),
        ({"expect_request": []}, "got expect_request"),
        ({"run": "1s", "restart": "clean"}, "got run, restart"),
        ({"run": "1s", "extra": 1}, "unknown field `extra`"),
        ({"run": 5}, "run: expected `str`, got `int`"),
        ({"run": "5"}, 'run: a duration needs a unit: write "5s"'),
        ({"run": "1d"}, "must be a duration with a unit"),
        ({"run": "idle"}, 'expected "within"'),
        ({"run": "1s", "within": "2s"}, 'expected "within"'),
        ({"run": "idle", "within": "x"}, "must be a duration with a unit"),
        ({"event": []}, "event: expected `object`, got `array`"),
        ({"record": {"valeu": ""}}, "unknown field `valeu`"),
        ({"record": {"value": "", "value_base64": ""}}, "record: expected value or value_base64, got both"),
        ({"record": {"value_base64": "*"}}, "record.value_base64: expected base64"),
        ({"record": {"value": {"repeat": ["x"]}}}, "record.value: expected `str | null`, got `object`"),
        ({"record": {"value": {"repeat": ["x", 10**9]}}}, "repeat: expected a text of at most"),
        ({"answers": [{}]}, "answers[0]: expected either status or fault"),
        ({"answers": [{"status": 200}, {"status": 1}]}, "answers[1]: status: expected an HTTP status, got 1"),
        ({"answers": [{"status": 200, "fault": "refused"}]}, "expected either status or fault"),
        ({"answers": [{"fault": "timeout"}]}, "answers[0].fault: invalid enum value 'timeout'"),
        ({"answers": [{"fault": "refused", "text": ""}]}, "the answer does not arrive"),
        ({"answers": [{"status": 200, "text": "", "json": 1}]}, "expected json or text, got both"),
        ({"answers": [{"status": 200, "times": 0}]}, "times: expected a count of at least 1"),
        ({"answers": [{"status": 200, "times": 2, "forever": True}]}, "without forever"),
        (
            {"answers": [{"fault": "refused", "applied_after": "1s"}]},
            "applied_after: only allowed with a fault that applies the request",
        ),
        ({"answers": [{"fault": "reset_applied", "applied_after": "1"}]}, "applied_after: a duration "),
        ({"answers_for": {"1": [{}]}}, "answers_for.1[0]: expected either status or fault"),
        ({"restart": "cold"}, "restart: invalid enum value 'cold'"),
        ({"operator": {}}, "operator: expected exactly one of release, resend, note, adopt, forget, "),
        (
            {"operator": {"delete": "acme/1"}},
            "operator: expected exactly one of release, resend, note, adopt, forget, ",
        ),
        ({"expect_requests": [{"path": ""}]}, "expect_requests[0]: contains unknown field `path`"),
        (
            {"expect_requests": [{"body": {"$like": 1}}]},
            "expect_requests[0].body: the value: there is no matcher $like",
        ),
        ({"expect_requests": [{"after": "soon"}]}, "expect_requests[0]: after: must be a duration "),
        ({"expect_requests": {"at_lest": 1}}, "unknown field `at_lest`"),
        ({"expect_no_request": False}, "expect_no_request: expected true"),
        ({"expect_order": {"status": "owed"}}, "missing required field `subject`"),
        ({"expect_order": {"subject": "a/1", "status": "setled"}}, "expect_order.status: invalid enum value 'setled'"),
        ({"expect_order": {"subject": "a/1", "shipped": [{"$regex": "("}]}}, "expect_order.shipped: [0]: $regex is no"),
        ({"expect_dead_letters": [{"reasons": ""}]}, "unknown field `reasons`"),
        ({"expect_held": {"1": {"shiped_minor": 1}}}, "unknown field `shiped_minor`"),
        ({"expect_log_lacks": "secret"}, "expect_log_lacks: expected `array`, got `str`"),
        ({"answers": [{"fault": "refused", "applied": True}]}, "applied: only allowed with a status"),
        ({"answers": [{"status": 200, "method": "post"}]}, "answers[0].method: invalid enum value 'post'"),
        ({"checkout": {"hats/A14": {"items": []}}}, "missing required field `order`"),
        ({"checkout": {"hats/A14": {"order": 1, "sum": 5}}}, "unknown field `sum`"),
        ({"act": {"escrow/3001": "canncel"}}, "invalid enum value 'canncel'"),
        ({"act": {"hats/A14": {}}}, "act.hats/A14: expected exactly one of capture, reserve, cancel"),
        ({"ends_for": {"hats/A14": [{"after": "soon"}]}}, "ends_for.hats/A14[0].after: must be a duration "),
        ({"pushes": "off"}, "pushes: invalid enum value 'off'"),
        ({"push": {"order": "hats/A14", "times": 0}}, "push.times: expected `int` >= 1"),
        (
            {"push": {"order": "a"}, "expect_answer": {"json": {"$like": 1}}},
            "expect_answer.json: the value: there is no",
        ),
        ({"callback": {"account": "a", "purpose": "p", "body": 1, "text": ""}}, "expected one of body, form, text"),
        ({"callback": {"account": "a", "purpose": "p", "token": "x"}}, "callback.token: invalid enum value 'x'"),
        ({"callback": {"account": "a", "purpose": "p"}, "expect_answer": {"within": "5"}}, "expect_answer.within: a "),
        ({"expect_order": {"subject": "a/1", "provider": {"x": {"$regex": "("}}}}, "expect_order.provider: x: $regex"),
        ({"expect_provider": {"hats/A14": {"catpured": {}}}}, "unknown field `catpured`"),
        ({"expect_provider": {"a/1": {"reserved": {"$x": 1}}}}, "expect_provider.a/1.reserved: the value: there is no"),
        ({"expect_results": [{}, {"data": {"$x": 1}}]}, "expect_results[1]: data: there is no matcher $x"),
    ],
)
def test_steps_that_are_none(step, said):
    """A step that the contract does not have is refused with the place and what was expected."""
    with pytest.raises(UsageError) as refused:
        read_step(step, "f")
    assert str(refused.value).startswith("f: ")
    assert said in str(refused.value)


def test_repeated_texts_are_written_out():
    """A long text can be told by its length, in records, events and answers."""
    step = read_step({"record": {"key": {"repeat": ["k", 2]}, "value": {"repeat": ["ab", 2]}}}, "f")
    assert isinstance(step, RecordStep)
    assert (step.record.key, step.record.value) == ("kk", "abab")
    step = read_step({"event": {"data": {"name": {"repeat": ["x", 3]}}}}, "f")
    assert isinstance(step, EventStep)
    assert step.event == {"data": {"name": "xxx"}}


def test_answers_become_a_script():
    """Answers get their bodies, their count and their delays."""
    step = read_step(
        {
            "answers": [
                {"status": 409, "json": {"errors": ["ñ"]}},
                {"status": 200, "headers": {"Retry-After": 3}, "text": "x", "times": 3},
                {"fault": "timeout_applied", "applied_after": "20s", "forever": True},
            ]
        },
        "f",
    )
    assert isinstance(step, AnswersStep)
    json_answer, text_answer, fault = answers_of(step.answers)
    assert (json_answer.status, json_answer.body, json_answer.times) == (409, '{"errors": ["ñ"]}'.encode(), 1)
    assert json_answer.headers == {"content-type": "application/json"}
    assert (text_answer.headers, text_answer.body, text_answer.times) == ({"Retry-After": "3"}, b"x", 3)
    assert (fault.fault, fault.applied_after_s, fault.times) == ("timeout_applied", 20.0, None)


def test_a_file(tmp_path: Path):
    """A scenario has its name from the file unless it gives one."""
    path = tmp_path / "S1.json"
    path.write_text(json.dumps({"steps": [{"run": "1s"}, {"expect_requests": []}]}), encoding="utf-8")
    scenario = read_scenario(path)
    assert scenario.name == "S1"
    assert isinstance(scenario.steps[1], ExpectRequestsStep)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ("[]", "expected `object`, got `array`"),
        ("{}", "missing required field `steps`"),
        ('{"steps": [], "accouts": {}}', "unknown field `accouts`"),
        ('{"steps": [{"run": "1s"}, {"rnu": "1s"}]}', "S1.json: step 2: expected exactly one of event"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text, said):
    """A file that cannot be read is named, with the step."""
    path = tmp_path / "S1.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_scenario(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_utf8(tmp_path: Path):
    """Bytes that are no text are an error of the file, not of the program."""
    path = tmp_path / "S1.json"
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(UsageError, match=r"S1\.json"):
        read_scenario(path)


def test_folders(tmp_path: Path):
    """A folder stands for the scenarios in and below it; what does not exist is an error."""
    (tmp_path / "b").mkdir()
    for name in ("b/2.json", "1.json", "README.md"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert find_files(tmp_path) == [tmp_path / "1.json", tmp_path / "b" / "2.json"]
    assert find_files(tmp_path / "README.md") == [tmp_path / "README.md"]
    with pytest.raises(UsageError, match="no such file"):
        find_files(tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no .*json files"):
        find_files(tmp_path / "empty")


@pytest.mark.parametrize("depth", [400, 600, 950, 3_000, 100_000])
def test_nesting_beyond_what_can_be_read(tmp_path: Path, depth: int) -> None:
    """It is said of the file; the others in the folder are run all the same."""
    path = tmp_path / "deep.json"
    nested = '{"a":' * depth + "1" + "}" * depth
    path.write_text(f'{{"name": "deep", "steps": [{{"event": {{"data": {nested}}}}}]}}')
    with pytest.raises(UsageError, match=r"deep\.json"):
        read_scenario(path)


def test_nesting_that_can_be_read(tmp_path: Path) -> None:
    """What is read is the same with every version of the interpreter."""
    path = tmp_path / "deep.json"
    path.write_text(f'{{"steps": [{{"event": {{"data": {"[" * 380}{"]" * 380}}}}}]}}')
    assert read_scenario(path).name == "deep"
