"""What is registered for a provider is found by the account that names it."""

from worker.providers.registry import PROVIDERS, describer


def test_describer() -> None:
    """Each account's own adapter describes; of an account that is not configured nothing is known."""
    describe = describer({"hats": "qliro", "acme": "sequra"})
    assert describe("hats", b"\xc1") == PROVIDERS["qliro"].describe(b"\xc1")
    assert describe("acme", b"") == PROVIDERS["sequra"].describe(b"")
    assert describe("gone", b"") is None
