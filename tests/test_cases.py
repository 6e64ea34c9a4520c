"""The acceptance cases: where each of them is held.

Those of Qliro and AtaraPay, C01 to C60: a scenario under its number in `scenarios/own/`, or a matter of one function, and
then a unit test that names it; some are both. Numbers that are in neither list were never given to a case.

Those of seQura, A1 to F16: a scenario under its number in `scenarios/sequra/`, with a letter where one case needs several;
or left out, for the reason that `scenarios/README.md` gives.
"""

import ast
import json
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OWN, SEQURA = TESTS / "scenarios" / "own", TESTS / "scenarios" / "sequra"
QLIRO, ATARAPAY, WEB = "unit/providers/qliro", "unit/providers/atarapay", "unit/web"

SCENARIOS = {
    *("C07", "C08", "C09", "C10", "C14", "C15", "C16", "C18", "C19", "C21", "C22", "C23", "C24", "C25", "C27", "C30"),
    *("C31", "C32", "C33", "C34", "C37", "C38", "C39", "C40", "C41", "C42", "C43"),
    *("C45", "C46", "C47", "C48", "C49", "C51", "C52", "C53", "C54", "C55"),
    *("C56", "C58", "C60"),
}
UNITS = {
    "C01": f"{QLIRO}/test_wire.py",  # the signature of a body, as a vector
    "C02": f"{QLIRO}/test_wire.py",  # of no body
    "C03": f"{QLIRO}/test_wire.py",  # of the bytes that are sent
    "C04": f"{QLIRO}/test_wire.py",  # how an amount is written
    "C05": f"{QLIRO}/test_wire.py",  # never with three decimals
    "C07": f"{QLIRO}/test_wire.py",  # which references Qliro takes
    "C11": f"{QLIRO}/test_order.py",  # what is reserved, from the actions of an order
    "C13": f"{QLIRO}/test_order.py",  # sums of transactions
    "C28": f"{QLIRO}/test_responses.py",  # when a request has the id of another
    "C33": f"{WEB}/test_receiver.py",  # everything else that lets nobody in
    "C34": f"{WEB}/test_receiver.py",  # brokers that hang, and that refuse
    "C44": f"{ATARAPAY}/test_tokens.py",  # the token of our calls, as a vector
    "C45": f"{ATARAPAY}/test_tokens.py",  # that of notifications
    "C54": f"{ATARAPAY}/test_calls.py",  # whatever quotes a token
}
SEQURA_CASES = {
    "A": {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14},
    "B": {1, 2, 4, 5, 6, 7, 8, 9, 12, 14},
    "C": {1, 2, 6, 7, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22},
    "D": {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12},
    "E": {1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 18},
    "F": {1, 2, 3, 6, 9, 11, 12, 13, 14, 15, 16},
}
"""Their numbers, by chapter; the others were never given to a case."""
SEQURA_LEFT_OUT = {"A12", "A13", "A14", "C9", "C10", "C11", "C22", "F12", "F16"}
NONE = {"C06", "C12", "C17", "C20", "C26", "C29", "C35", "C36", "C50", "C57", "C59"}


def test_every_case_is_held() -> None:
    """None is missing, and none is both a case and none."""
    numbers = {f"C{number:02}" for number in range(1, 61)}
    assert SCENARIOS | UNITS.keys() == numbers - NONE


def test_scenarios_are_those_of_the_list() -> None:
    """A file that was taken away, or put there without a word, is noticed."""
    assert {file.stem for file in OWN.glob("C[0-9][0-9]*.json")} == SCENARIOS


def test_every_case_of_sequra_is_held() -> None:
    """Each number has a file, or several with letters; a file that bears the number of no case is noticed, too."""
    numbers = {f"{chapter}{number}" for chapter, of in SEQURA_CASES.items() for number in of}
    files = (file.stem for file in SEQURA.glob("[A-F][0-9]*.json"))
    held = {match[1] for stem in files if (match := re.fullmatch(r"([A-F]\d+)[a-z]?", stem))}
    assert held == numbers - SEQURA_LEFT_OUT
    readme = (SEQURA.parent / "README.md").read_text(encoding="utf-8").partition("## Cases left out")[2]
    assert {number for number in numbers if re.search(rf"\b{number}\b", readme)} == SEQURA_LEFT_OUT


@pytest.mark.parametrize("number", sorted(SCENARIOS))
def test_scenario_expects_something(number: str) -> None:
    """Under its own name, with where it comes from; that its expectations are met, `test_scenarios.py` sees."""
    scenario = json.loads((OWN / f"{number}.json").read_text(encoding="utf-8"))
    assert scenario["name"] == number
    assert scenario["title"]
    assert scenario["source"]
    assert sum(any(member.startswith("expect_") for member in step) for step in scenario["steps"]) >= 2


@pytest.mark.parametrize(("number", "place"), UNITS.items(), ids=UNITS)
def test_unit_test_names_its_case(number: str, place: str) -> None:
    """In its name, in what it says, or in the id of a parameter."""
    tree = ast.parse((TESTS / place).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert any(re.match(rf"(.*, )?{number}\b", text) for text in texts) or any(number.lower() in name for name in names)
