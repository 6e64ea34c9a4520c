"""What matches, and how a difference reads."""

import pytest

from worker.tools.scenario.matching import (
    differences,
    header_differences,
    pattern_problem,
    show,
    unordered_differences,
)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1),
        ("a", "a"),
        (None, None),
        (True, True),
        (1.5, 1.5),
        ({}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3}),
        ([1, [2]], [1, [2]]),
        ({"$absent": ["b"]}, {"a": 1}),
        ({"a": 1, "$absent": ["b"]}, {"a": 1}),
        ({"$exact": {"a": 1}}, {"a": 1}),
        ({"$exact": {"a": {"b": 1}}}, {"a": {"b": 1, "c": 2}}),
        ({"$exact": {}}, {}),
        ({"$regex": "^a.c$"}, "abc"),
        ({"$regex": "b"}, "abc"),
        ([{"$regex": "x"}, 2], ["xyz", 2]),
        (
            {
                "a": [
                    {
                        "$regex": "x",
                    }
                ]
            },
            {"a": ["x"]},
        ),
    ],
)
def test_matches(expected, actual):
    """A value that has what is expected has no differences."""
    assert differences(expected, actual) == []


@pytest.mark.parametrize(
    ("expected", "actual", "said"),
    [
        (1, 2, ["v: expected 1, got 2"]),
        (1, True, ["v: expected 1, got true"]),
        (True, 1, ["v: expected true, got 1"]),
        (0, False, ["v: expected 0, got false"]),
        (1, 1.0, ["v: expected 1, got 1.0"]),
        (1, "1", ['v: expected 1, got "1"']),
        (0, None, ["v: expected 0, got null"]),
        (None, 0, ["v: expected null, got 0"]),
        ({"a": None}, {}, ["v.a: expected null, got nothing"]),
        ({"a": 1}, {"b": 1}, ["v.a: expected 1, got nothing"]),
        ({"a": 1}, [], ['v: expected {"a": 1}, got []']),
        ([], {}, ["v: expected [], got {}"]),
        ([1, 2], [2, 1], ["v[0]: expected 1, got 2", "v[1]: expected 2, got 1"]),
        ([1], [1, 2], ["v: expected 1 values, got 2: [1, 2]"]),
        ({"$absent": ["a"]}, {"a": None}, ["v.a: expected nothing, got null"]),
        ({"$exact": {"a": 1}}, {"a": 1, "b": 2}, ["v.b: expected nothing, got 2"]),
        ({"$exact": {"a": 1}, "$absent": ["c"]}, {"a": 2}, ["v.a: expected 1, got 2"]),
        ({"$regex": "^b"}, "abc", ['v: expected a text with /^b/, got "abc"']),
        ({"$regex": "1"}, 1, ["v: expected a text with /1/, got 1"]),
        ("A", "a", ['v: expected "A", got "a"']),
    ],
)
def test_differs(expected, actual, said):
    """A value that lacks something says where, what was expected and what there is."""
    assert differences(expected, actual, "v") == said


def test_cart_items_match_in_any_order():
    """Only the lists of cart items have no order."""
    items = [{"reference": "a", "total": 1, "x": 0}, {"reference": "b", "total": 2}]
    turned = items[::-1]
    assert differences({"cart": {"items": turned}}, {"cart": {"items": items}}) == []
    assert differences({"shipped": turned, "unshipped": []}, {"shipped": items, "unshipped": []}) == []
    assert differences({"trackings": turned}, {"trackings": items}) != []


def test_cart_items_are_assigned_not_taken_greedily():
    """A vague item does not take the only partner of a precise one, over chains of any length."""
    expected = [{}, {"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}]
    actual = [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1}, {"a": 1}, {"z": 1}]
    assert differences({"items": expected}, {"items": actual}) == []
    assert differences({"items": [{"a": 1}, {"a": 1}]}, {"items": [{"a": 1}, {"a": 2}]}) == [
        "items[1].a: expected 1, got 2"
    ]


def test_cart_items_are_compared_with_what_they_resemble():
    """The difference of an item without a partner is against the nearest one, and names it."""
    expected = [{"reference": "a", "quantity": 1, "total": 5}, {"reference": "b", "quantity": 1, "total": 7}]
    actual = [{"reference": "b", "quantity": 1, "total": 8}, {"reference": "a", "quantity": 1, "total": 5}]
    assert differences({"items": expected}, {"items": actual}) == ["items[reference b].total: expected 7, got 8"]


def test_cart_items_of_another_number():
    """Lists of cart items have the same length; what is missing and what is too much is named."""
    assert differences({"items": [{"a": 1}]}, {"items": [{"b": 2}, {"a": 1}]}) == [
        "items: expected 1 values, got 2",
        'items: not expected {"b": 2}',
    ]
    assert differences({"items": [{"a": 1}]}, {"items": []}) == [
        "items: expected 1 values, got 0",
        'items: missing {"a": 1}',
    ]


def test_many_cart_items():
    """A cart of a thousand items, turned around, is compared in bearable time."""
    items = [{"reference": str(number), "total": number} for number in range(1000)]
    assert differences({"items": items[::-1]}, {"items": items}) == []


def test_unordered_with_a_differ():
    """Any comparison can be made without order."""
    assert unordered_differences([1, 2], [2, 1], "r", lambda e, a: [] if e == a else [f": {e} is not {a}"]) == []
    assert unordered_differences([1, 3], [2, 1], "r", lambda e, a: [] if e == a else [f": {e} is not {a}"]) == [
        "r[1]: 3 is not 2"
    ]


def test_headers_match_in_any_case():
    """Names of headers have no case, values have."""
    actual = {"Content-Type": "application/json"}
    assert header_differences({"content-TYPE": {"$regex": "json"}, "$absent": ["X-A"]}, actual, "h") == []
    assert header_differences({"$absent": ["CONTENT-type"]}, actual, "h") != []
    assert header_differences({"$exact": {"CONTENT-TYPE": "application/json"}}, actual, "h") == []
    assert header_differences({"content-type": "application/JSON"}, actual, "h") != []


@pytest.mark.parametrize(
    "pattern",
    [
        {"$absent": "a"},
        {"$absent": [1]},
        {"$exact": []},
        {"$exact": {"$regex": "x"}},
        {"$regex": "("},
        {"$regex": 1},
        {"$regex": "a", "b": 1},
        {"$like": "a"},
        {"a": [{"b": {"$regex": "("}}]},
        {"$exact": {"a": {"$like": 1}}},
    ],
)
def test_patterns_that_mean_nothing(pattern):
    """A matcher that is misspelt or misused is found before anything is compared."""
    assert pattern_problem(pattern)


@pytest.mark.parametrize("pattern", [1, None, [{"$regex": "a"}], {"$exact": {"a": 1, "$absent": ["b"]}}])
def test_patterns_that_mean_something(pattern):
    """A pattern that can be compared has no problem."""
    assert pattern_problem(pattern) is None


def test_long_values_are_shortened():
    """A difference shows the beginning of a long value and how long it is."""
    assert show("x" * 1000).endswith("(1002 characters)")
    assert len(show("x" * 1000)) < 200
