"""Whom accounts tell: when two addresses are one, when two accounts are, and what a change asks for."""

import pytest
from msgspec.structs import replace

from schemas.state import Target
from worker.core.targets import changed_targets, check_targets, needs_choice, target_of
from worker.errors import ConfigError
from worker.providers.sequra.options import SequraAccount

ACME = SequraAccount("acme", "sequra", "https://sandbox.example", "m1", "u", "p")
SAME = [
    "https://sandbox.example/",
    "https://SANDBOX.example:443",
    "HTTPS://sandbox.example//",
]
OTHER = ["https://sandbox.example/v2", "https://sandbox.example:8443", "https://live.example", "http://sandbox.example"]


@pytest.mark.parametrize("base_url", SAME)
def test_one_address_in_many_forms(base_url: str) -> None:
    """Case of the host, the default port and a slash at the end make no other target."""
    assert target_of(replace(ACME, base_url=base_url)) == target_of(ACME) == Target("sequra", ACME.base_url, "m1")


@pytest.mark.parametrize("base_url", OTHER)
def test_other_addresses(base_url: str) -> None:
    """Another host, port, path or scheme makes one."""
    assert target_of(replace(ACME, base_url=base_url)) == Target("sequra", base_url, "m1")


def test_address_of_a_number() -> None:
    """A host of IPv6 keeps its brackets."""
    assert target_of(replace(ACME, base_url="http://[::1]:80/x")).base_url == "http://[::1]/x"


def test_two_accounts_of_one_merchant() -> None:
    """They would overwrite each other's orders; whatever else differs does not help."""
    twin = replace(ACME, name="twin", base_url="https://sandbox.example/", username="other", store_ref="s")
    check_targets({"acme": ACME, "other": replace(ACME, merchant_id="m2")})
    with pytest.raises(
        ConfigError, match=r"\[accounts.twin\] and \[accounts.acme\] are the same merchant m1 of sequra"
    ):
        check_targets({"acme": ACME, "twin": twin})


def test_changes() -> None:
    """Only an account that told somebody else before has changed; new ones and those that are gone have not."""
    told = {"acme": target_of(ACME), "gone": Target("sequra", "https://x", "m")}
    assert list(changed_targets(told, [ACME, replace(ACME, name="new")])) == []
    live = replace(ACME, base_url="https://live.example")
    assert list(changed_targets(told, [live])) == [("acme", target_of(ACME), target_of(live))]


def test_words_of_a_change() -> None:
    """The account, both targets and both choices are named."""
    error = needs_choice("acme", target_of(ACME), Target("sequra", "https://live.example", "m2"), 12, 3)
    assert isinstance(error, ConfigError)
    for words in (
        "account acme: 12 orders of partition 3 were told to sequra merchant m1 at https://sandbox.example",
        "now says sequra merchant m2 at https://live.example",
        "--accept-target acme=send",
        "--accept-target acme=keep",
    ):
        assert words in str(error)
