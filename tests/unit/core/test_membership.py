"""The name of a group's member."""

import re

import pytest

from worker.core.membership import NAME_MAX, SHARED_WITHIN_S, MemberName, is_name, name_of


def test_lost_once_keeps_its_name() -> None:
    """A session may end while a process is frozen: it takes its place again, also much later once more."""
    name = MemberName("pod-8080")
    assert not name.lost(10.0)
    assert not name.lost(10.0 + SHARED_WITHIN_S)
    assert name.current == "pod-8080"


def test_lost_twice_gives_it_up() -> None:
    """Somebody else has it: from then on it goes without."""
    name = MemberName("pod-8080")
    assert not name.lost(10.0)
    assert name.lost(9.0 + SHARED_WITHIN_S)
    assert name.current == ""
    assert not name.lost(11.0 + SHARED_WITHIN_S)


def test_without_a_name_nothing_is_given_up() -> None:
    """Whoever has none loses its membership as often as it likes."""
    name = MemberName("")
    assert not name.lost(1.0)
    assert not name.lost(2.0)


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("cartsync-0", 8080, "cartsync-0-8080"),
        ("pay.example.com", 9000, "pay.example.com-9000"),
        ("Büro_1", 8080, "B-ro_1-8080"),
        ("localhost", 8080, ""),
        ("localhost.localdomain", 8080, ""),
        ("", 8080, ""),
        ("cartsync-0", 0, ""),
    ],
)
def test_name_of_a_worker(host: str, port: int, name: str) -> None:
    """Of what tells it from all others; none where nothing does."""
    assert name_of(host, port) == name


def test_long_host_names() -> None:
    """Kafka takes 249 characters, and the port has to be among them."""
    name = name_of("h" * 300, 65535)
    assert len(name) == NAME_MAX
    assert re.fullmatch("h+-65535", name)


@pytest.mark.parametrize("text", ["cartsync-0", "a", "a.b_c-D9", "x" * NAME_MAX])
def test_names_that_kafka_takes(text: str) -> None:
    """Letters, digits, dots, hyphens and underscores."""
    assert is_name(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a b", "a/b", "ü", "x" * (NAME_MAX + 1)])
def test_names_that_kafka_refuses(text: str) -> None:
    """All else."""
    assert not is_name(text)
