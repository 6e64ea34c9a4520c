"""A merchant account, as far as every provider has one; what only one of them wants stands in its folder."""

from msgspec import Struct


class Account(Struct, frozen=True, kw_only=True):
    """One shop at one provider. Never printed whole: it holds secrets."""

    name: str
    provider: str
    base_url: str
    send_on_confirm: bool = False
    """Whether a mere confirmation is sent, too."""
    concurrency: int = 32
    """Attempts under way at once, at most."""
    rate_per_s: float = 0.0
    """Attempts a second, at most; 0: no limit."""
    tls_ca_file: str = ""
    """Who may vouch for the provider, instead of those whom the system trusts."""
    tls_cert_file: str = ""
    """Shown to the provider, with its key."""
    tls_key_file: str = ""
    proxy: str = ""
    """The only way out, as a URL; may hold credentials."""
    trust_origin: bool = True
    """Whether a change that an event says was made at the provider is not told back."""

    @property
    def merchant(self) -> str:
        """Who the account is to the provider: tells two accounts at one address apart, and is no secret. Its own name,
        where its provider's accounts say no more.
        """
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.provider!r}, {self.merchant!r})"
