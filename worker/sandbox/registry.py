"""Every sandbox, by the provider that it stands for, and how the command line makes one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from worker.sandbox.atarapay.sandbox import AtaraPaySandbox
from worker.sandbox.qliro.sandbox import QliroSandbox
from worker.sandbox.sequra.sandbox import SequraSandbox
from worker.sandbox.server import Sandbox


class SandboxKind(Struct, frozen=True):
    """A sandbox that can be started."""

    title: str
    form: str
    """Of the credentials of one merchant: their parts, with colons between them."""
    example: str
    """The credentials that it has by default."""
    make: Callable[..., Sandbox]
    """From the parts of each merchant's credentials and `Sandbox`'s own options; `callback_url` where it takes one."""
    has_many: bool = False
    """Whether it may have several merchants."""
    takes_callback_url: bool = False
    """Whether one address serves all callbacks; otherwise each order brings its own."""
    is_named: bool = True
    """Whether the first part of the credentials may be shown."""


def _sequra(known: Sequence[Sequence[str]], **options: Any) -> Sandbox:
    return SequraSandbox({merchant: (user, password) for merchant, user, password in known}, **options)


def _qliro(known: Sequence[Sequence[str]], **options: Any) -> Sandbox:
    ((api_key, api_secret),) = known
    return QliroSandbox(api_key, api_secret, **options)


def _atarapay(known: Sequence[Sequence[str]], **options: Any) -> Sandbox:
    ((public_key, private_key),) = known
    return AtaraPaySandbox(public_key, private_key, **options)


SANDBOXES: Mapping[str, SandboxKind] = {
    "sequra": SandboxKind(SequraSandbox.name, "MERCHANT:USER:PASSWORD", "acme:user:secret", _sequra, has_many=True),
    "qliro": SandboxKind(QliroSandbox.name, "KEY:SECRET", "HATS:secret", _qliro),
    "atarapay": SandboxKind(
        AtaraPaySandbox.name,
        "PUBLIC_KEY:PRIVATE_KEY",
        "public:private",
        _atarapay,
        takes_callback_url=True,
        is_named=False,
    ),
}
