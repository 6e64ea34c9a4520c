"""What AtaraPay wants to know of an account."""

from hashlib import blake2b

from worker.model.account import Account

ALREADY_PROCESSED = ("already processed", "already been processed")
TOKEN_REFUSED = ("invalid authtoken",)


class AtaraPayAccount(Account, frozen=True):
    """A seller at AtaraPay. Whoever has both keys acts as the seller, so neither of them is shown anywhere."""

    name: str
    provider: str
    base_url: str
    """As given, whatever path it has: AtaraPay's documentation and its plugin name different ones."""
    public_key: str
    private_key: str
    already_processed: tuple[str, ...] = ALREADY_PROCESSED
    """Parts of the messages by which AtaraPay says that the order has left the state that a word is for."""
    token_refused: tuple[str, ...] = TOKEN_REFUSED
    """Parts of the messages by which AtaraPay says that the keys are wrong."""

    @property
    def merchant(self) -> str:
        """A digest: AtaraPay's tokens hold the public key, so it is one half of a secret."""
        return blake2b(self.public_key.encode(), digest_size=6).hexdigest()
