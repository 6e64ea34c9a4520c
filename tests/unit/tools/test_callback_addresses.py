"""Addresses as they are printed and checked."""

import json

import pytest

from worker.core.tokens import Address, Tokens
from worker.errors import ConfigError, UsageError
from worker.model.callbacks import Caller, Lookups
from worker.tools.callback_addresses import print_addresses, verify_address

SECRET, OLD = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
HATS = "/callbacks/hats/order-status/ji73wQ6JGmqp49oG3vZeOwXctIKacmEK1xnJSkd_GQM/A14%2F12345"
CALLERS = {
    "hats": Caller(name="hats", provider="qliro", callback_secrets=(SECRET, OLD)),
    "asks": Caller(
        name="asks",
        provider="qliro",
        callback_secrets=(SECRET,),
        lookups=Lookups(url="https://x", token=SECRET, timeout_s=1, defaults={}),
    ),
    "acme": Caller(name="acme", provider="sequra", callback_secrets=(SECRET,)),
    "escrow": Caller(name="escrow", provider="atarapay", callback_secrets=(SECRET,)),
    "closed": Caller(name="closed", provider="qliro", callback_secrets=()),
}
Capsys = pytest.CaptureFixture[str]


def printed(capsys: Capsys, account: str, reference: str = "", purpose: str | None = None) -> list[str]:
    """The lines for people, with a public URL."""
    assert print_addresses("https://cb.example", CALLERS, account, reference, purpose, as_json=False) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_one_address(capsys: Capsys) -> None:
    """The vector of the manual."""
    assert printed(capsys, "hats", "A14/12345", "order-status") == [f"order-status         https://cb.example{HATS}"]


def test_all_addresses_of_an_order(capsys: Capsys) -> None:
    """Questions are there where there are lookups."""
    assert [line.split()[0] for line in printed(capsys, "hats", "A14/12345")] == [
        *("checkout-status", "order-status", "notification", "saved-card")
    ]
    assert len(printed(capsys, "asks", "A14/12345")) == 7


def test_address_of_a_seller(capsys: Capsys) -> None:
    """Without a reference."""
    (line,) = printed(capsys, "escrow")
    assert line.endswith("/callbacks/escrow/notification/97BLDGN5_Ux4JPh6uvEt0ttMo9nrDFD53Reh0D8JIz8")


def test_token_as_a_parameter(capsys: Capsys) -> None:
    """What is given to seQura when the address cannot carry the token."""
    lines = printed(capsys, "acme", "7", "webhook")
    token = Tokens([SECRET]).token("acme", "webhook", "7")
    assert lines[1].strip() == f"or https://cb.example/callbacks/acme/webhook with the parameter token = {token}"


def test_for_machines(capsys: Capsys) -> None:
    """The same as JSON; without a public URL these are paths."""
    assert print_addresses("", CALLERS, "acme", "7", None, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["account"], found["reference"]) == ("acme", "7")
    assert [address["purpose"] for address in found["addresses"]] == ["webhook", "ipn"]
    assert found["addresses"][0]["url_for_token_in_body"] == "/callbacks/acme/webhook"


def test_without_public_url(capsys: Capsys) -> None:
    """It is said that something is missing."""
    assert print_addresses("", CALLERS, "escrow", "", None, as_json=False) == 0
    assert "set [callbacks] public_url" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("account", "reference", "purpose", "expected"),
    [
        ("nobody", "7", None, "no account nobody; configured are hats"),
        ("hats", "7", "party", "hats has no callbacks for party, only for checkout-status"),
        ("hats", "7", "validation", "hats has no callbacks for validation"),
        ("hats", "", None, "is for one order: pass its reference"),
        ("escrow", "7", None, "is for the seller: pass no order"),
        ("hats", "a/../b", None, "not a valid order"),
    ],
)
def test_what_has_no_address(account: str, reference: str, purpose: str | None, expected: str) -> None:
    """It is said why."""
    with pytest.raises(UsageError, match=expected):
        print_addresses("", CALLERS, account, reference, purpose, as_json=False)


def test_account_without_secrets() -> None:
    """One has to be made first."""
    with pytest.raises(ConfigError, match=r"callback_secrets is missing"):
        print_addresses("", CALLERS, "closed", "7", None, as_json=False)


@pytest.mark.parametrize("address", [HATS, f"https://cb.example{HATS}", f"http://user@cb.example:8081{HATS}"])
def test_let_in(capsys: Capsys, address: str) -> None:
    """A path, or a URL."""
    assert verify_address(CALLERS, address, as_json=False) == 0
    assert capsys.readouterr().out == (
        "accepted: account hats, purpose order-status, order A14/12345; by the one that signs\n"
    )


def test_let_in_by_an_old_secret(capsys: Capsys) -> None:
    """It is said by which."""
    address = Address("hats", "order-status", Tokens([OLD]).token("hats", "order-status", "7"), "7").path()
    assert verify_address(CALLERS, address, as_json=False) == 0
    assert "by number 2 of callback_secrets, an old one" in capsys.readouterr().out
    assert verify_address(CALLERS, address, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "why": "",
        "secret": 2,
        "account": "hats",
        "purpose": "order-status",
        "reference": "7",
    }


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (HATS.replace("%2F", "/"), "not a callback address"),
        (HATS + "?x=1", "not a callback address"),
        ("https://[::1" + HATS, "not a callback address"),
        ("nonsense", "not a callback address"),
        (HATS.replace("hats", "nobody"), "account nobody is not configured"),
        (HATS.replace("hats", "closed"), "has no callback_secrets"),
        (HATS.replace("order-status", "validation"), "hats has no callbacks for validation"),
        ("/callbacks/acme/webhook", "it has no token"),
        (HATS.rpartition("/")[0], "is for one order"),
        (HATS.replace("12345", "12346"), "the token belongs to another order, purpose or secret"),
    ],
)
def test_not_let_in(capsys: Capsys, address: str, why: str) -> None:
    """Exit code 1, and why."""
    assert verify_address(CALLERS, address, as_json=False) == 1
    assert why in capsys.readouterr().out
    assert verify_address(CALLERS, address, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["secret"], why in found["why"]) == (False, None, True)
