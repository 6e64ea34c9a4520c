"""The nouns that everybody speaks of."""

from worker.model.account import Account


def test_account_of_a_provider_that_says_no_more() -> None:
    """It is known by its own name; nothing else of it is shown."""
    account = Account(name="shop", provider="x", base_url="https://x", proxy="http://user:secret@proxy:1")
    assert (account.merchant, repr(account)) == ("shop", "Account('shop', 'x', 'shop')")
