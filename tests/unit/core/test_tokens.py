"""Tokens and addresses of callbacks."""

import pytest

from worker.core.tokens import PATH_MAX, Address, Tokens, read_path

SECRET = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
HATS = "/callbacks/hats/order-status/ji73wQ6JGmqp49oG3vZeOwXctIKacmEK1xnJSkd_GQM/A14%2F12345"
ESCROW = "/callbacks/escrow/notification/97BLDGN5_Ux4JPh6uvEt0ttMo9nrDFD53Reh0D8JIz8"


@pytest.mark.parametrize(
    ("path", "account", "purpose", "reference"),
    [(HATS, "hats", "order-status", "A14/12345"), (ESCROW, "escrow", "notification", "")],
)
def test_published_addresses(path: str, account: str, purpose: str, reference: str) -> None:
    """The addresses that the manual prints are made, and read, to the letter."""
    tokens = Tokens([SECRET])
    token = tokens.token(account, purpose, reference)
    assert Address(account, purpose, token, reference).path() == path
    assert read_path(path) == Address(account, purpose, token, reference)
    assert tokens.which(token, account, purpose, reference) == 0


@pytest.mark.parametrize(
    ("account", "purpose", "reference"),
    [
        ("hats", "order-status", "A14/12346"),
        ("hats", "checkout-status", "A14/12345"),
        ("caps", "order-status", "A14/12345"),
    ],
)
def test_token_is_of_one_order_one_purpose_one_account(account: str, purpose: str, reference: str) -> None:
    """A token lets in what it was made for, and nothing else."""
    tokens = Tokens([SECRET])
    token = tokens.token("hats", "order-status", "A14/12345")
    assert tokens.which(token, "hats", "order-status", "A14/12345") == 0
    assert tokens.which(token, account, purpose, reference) is None


def test_old_secrets_are_accepted_and_told_apart() -> None:
    """The first signs; which one a token is of can be counted."""
    both, old = Tokens([SECRET, OTHER]), Tokens([OTHER])
    assert both.which(both.token("a", "p", "r"), "a", "p", "r") == 0
    assert both.which(old.token("a", "p", "r"), "a", "p", "r") == 1
    assert old.which(both.token("a", "p", "r"), "a", "p", "r") is None
    assert Tokens([]).which("", "a", "p", "r") is None


@pytest.mark.parametrize("given", ["", "ü", "ji73wQ6JGmqp49oG3vZeOwXctIKacmEK1xnJSkd_GQM=", "x" * 5000])
def test_odd_tokens_are_wrong(given: str) -> None:
    """Whatever stands there, it is compared, and nothing is raised."""
    assert Tokens([SECRET]).which(given, "hats", "order-status", "A14/12345") is None


def test_every_reference_can_be_told() -> None:
    """Whatever an account and a reference may hold comes back from the path."""
    for reference in ("a/b", "100 %", "ü ?#&+", "%2F", 'x"\n', "\N{SNOWMAN}" * 200):
        address = Address("ca%ps ü", "order-status", "t", reference)
        assert read_path(address.path()) == address
    assert len(Address("\U0001f3a9" * 100, "shipping-addresses", "t" * 43, "\U0001f3a9" * 200).path()) < PATH_MAX


def test_token_may_stand_in_the_body() -> None:
    """A path without a token says so."""
    assert read_path("/callbacks/acme/webhook") == Address("acme", "webhook")
    assert Address("acme", "webhook").path() == "/callbacks/acme/webhook"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/callbacks",
        "/callbacks/hats",
        "/callbacks//order-status/t/r",
        HATS + "/",
        HATS + "?x=1",
        HATS + "#x",
        HATS.replace("%2F", "/"),
        "/" + HATS,
        "http://example.com" + HATS,
        "/callbacks/hats/order-status/t/%ff",
        "/callbacks/hats/order-status/t/%ed%a0%80",
        "/callbacks/hats/order-status/t/ü",
        "/callbacks/hats/order-status/t/" + "a" * PATH_MAX,
    ],
)
def test_what_is_no_address(path: str) -> None:
    """Nothing is mended: not a slash too many, not a query, not an encoding that is none."""
    assert read_path(path) is None
