"""An account's settings for AtaraPay."""

from hashlib import blake2b

from worker.model.account import Account

ALREADY_PROCESSED = ("already processed", "already been processed")
TOKEN_REFUSED = ("invalid authtoken",)


class AtaraPayAccount(Account, frozen=True):
    """A seller at AtaraPay. Anyone with both keys can act as the seller, so neither key is ever shown."""

    name: str
    provider: str
    base_url: str
    """As given, with any path: AtaraPay's documentation and its plugin use different ones."""
    public_key: str
    private_key: str
    already_processed: tuple[str, ...] = ALREADY_PROCESSED
    """Parts of the messages by which AtaraPay says that the order is past the state that a word applies to."""
    token_refused: tuple[str, ...] = TOKEN_REFUSED
    """Parts of the messages by which AtaraPay says that the keys are wrong."""

    @property
    def merchant(self) -> str:
        """A digest: AtaraPay's tokens contain the public key, so it is one half of a secret."""
        return blake2b(self.public_key.encode(), digest_size=6).hexdigest()
