"""Reasons without what may be of a person."""

import pytest

from worker.core.masking import KIND_MAX, reason_family, reason_kind


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("422: ana@example.org is not known", "422: … is not known"),
        ('409: "Ana García" has no order 4711', "409: … has no order …"),
        ("the order 1234567 of +34931234567", "the order … of +…"),
        ("see https://x.example/ana?id=1 there", "see … there"),
        ("302: Shipping is too late. Ask again", "302: Shipping is too late. Ask again"),
        ("422: Customer Ana García is blocked", "422: Customer … … is blocked"),
        ("503", "503"),
        ("line A: 3 shipped of 2 ordered", "line A: 3 shipped of 2 ordered"),
        ("a  \n b", "a b"),
    ],
)
def test_kinds_of_reasons(reason: str, kind: str) -> None:
    """A reason keeps what it has in common with others, and what may be of a person is left out."""
    assert reason_kind(reason) == kind


def test_long_reasons_are_cut() -> None:
    """And show that they were."""
    kind = reason_kind("no " * 500)
    assert len(kind) == KIND_MAX
    assert kind.endswith("…")


def test_families_of_reasons() -> None:
    """Orders that wait for the same are one family, whatever the counts; the status of the answer stays."""
    assert reason_family("422: 3 of 4 units") == "422: … of … units"
    assert reason_family("line A: 3 shipped of 2") == "line A: … shipped of …"
