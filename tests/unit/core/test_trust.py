"""The MAC of records: its bytes, more secrets than one, and none."""

import hashlib
import hmac

import pytest

from worker.core.trust import Trust
from worker.errors import MalformedEventError

ONE, TWO = "0123456789abcdef0123456789abcdef", "ein Geheimnis, lang genug für alle"


def is_believed(trust: Trust, mac: bytes | None, key: bytes = b"acme/1", value: bytes = b"{}") -> bool:
    """Whether a record with this MAC is."""
    try:
        trust.check(key, value, mac)
    except MalformedEventError:
        return False
    return True


def test_mac_in_any_language() -> None:
    """HMAC-SHA256 of key, a zero byte, and value, in hexadecimal digits: the same every time that it is asked for."""
    trust = Trust([ONE, TWO])
    for key, value in ((b"acme/1", b"{}"), (b"", b""), (b"acme/1", b"{}")):
        expected = hmac.new(ONE.encode(), key + b"\0" + value, hashlib.sha256).hexdigest()
        assert trust.sign(key, value) == expected.encode()
    assert trust.sign(b"acme/1", b"{}") == b"5db6346f386e41514e6138ab221e1edf0b8da4bcf2f20b25e21177785012b281"


def test_first_secret_signs_and_all_are_accepted() -> None:
    """So a new one can be given to all workers before anybody signs with it."""
    macs = [Trust([secret]).sign(b"acme/1", b"{}") for secret in (ONE, TWO)]
    assert Trust([TWO, ONE]).sign(b"acme/1", b"{}") == macs[1]
    for mac in macs:
        assert is_believed(Trust([ONE, TWO]), mac)
        assert is_believed(Trust([ONE, TWO]), mac.upper())
        assert not is_believed(Trust([ONE, TWO]), mac, value=b"{ }")
        assert not is_believed(Trust([ONE, TWO]), mac, key=b"acme/2")
        assert not is_believed(Trust([ONE, TWO]), mac[:-1])
    assert not is_believed(Trust([TWO]), macs[0])
    assert not is_believed(Trust([ONE]), None)


def test_key_and_value_do_not_run_together() -> None:
    """What is moved from the one to the other has another MAC."""
    assert Trust([ONE]).sign(b"ab", b"c") != Trust([ONE]).sign(b"a", b"bc")


@pytest.mark.parametrize("mac", [None, b"", b"00"])
def test_without_secrets_nothing_is_believed(mac: bytes | None) -> None:
    """Nor is the MAC of an empty secret, which everybody knows."""
    assert not is_believed(Trust(), mac)
    assert not is_believed(Trust(), Trust([""]).sign(b"acme/1", b"{}"))
