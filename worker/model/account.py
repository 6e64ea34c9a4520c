"""The part of a merchant account that every provider has; provider-specific settings are in the provider's folder."""

from msgspec import Struct


class Account(Struct, frozen=True, kw_only=True):
    """One shop at one provider. Never printed whole: it contains secrets."""

    name: str
    provider: str
    base_url: str
    send_on_confirm: bool = False
    """Whether a mere confirmation is sent, too."""
    concurrency: int = 32
    """Maximum number of attempts in flight."""
    rate_per_s: float = 0.0
    """Maximum number of attempts per second; 0: no limit."""
    tls_ca_file: str = ""
    """Authorities for the provider's certificate, instead of the system's."""
    tls_cert_file: str = ""
    """The client certificate, with its key."""
    tls_key_file: str = ""
    proxy: str = ""
    """The URL of the proxy for all requests; may contain credentials."""
    trust_origin: bool = True
    """Whether to believe an event that says that the change was made at the provider."""

    @property
    def merchant(self) -> str:
        """The account's identity at the provider: distinguishes two accounts at one address, and is not secret.
        Default: its name.
        """
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.provider!r}, {self.merchant!r})"
