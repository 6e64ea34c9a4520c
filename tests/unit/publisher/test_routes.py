"""Certificates and proxies of accounts: each mistake names the account and the file, and shows no secret."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from worker.errors import ConfigError
from worker.model.account import Account
from worker.providers.sequra.options import SequraAccount
from worker.publisher.routes import Proxy, Route, default_tls, routes_of


def account(**members: Any) -> Account:
    """An account called acme."""
    return SequraAccount("acme", "sequra", "https://x", "acme", "user", "secret", **members)


def problem(**members: Any) -> str:
    """What is said of an account with these members."""
    with pytest.raises(ConfigError) as raised:
        routes_of({"acme": account(**members)})
    return str(raised.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files with this and that in them."""
    folder = tmp_path_factory.mktemp("files")
    ca = trustme.CA()
    own, other = (ca.issue_cert("client.example") for _ in range(2))
    key = load_pem_private_key(own.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    contents = {
        "ca": ca.cert_pem.bytes(),
        "cert": own.cert_chain_pems[0].bytes(),
        "key": own.private_key_pem.bytes(),
        "other_key": other.private_key_pem.bytes(),
        "encrypted_key": encrypted,
        "der": ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode()),
        "nonsense": b"nonsense",
        "empty": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in (*contents, "missing")} | {"folder": str(folder)}


def test_accounts_without_files_go_the_usual_way() -> None:
    """Nothing is read for them."""
    assert routes_of({"acme": account()}) == {"acme": Route()}
    assert default_tls() is default_tls()
    assert default_tls().verify_mode is ssl.CERT_REQUIRED
    assert default_tls().check_hostname


def test_files_are_read(files: dict[str, str]) -> None:
    """What is trusted is still verified."""
    route = routes_of(
        {"acme": account(tls_ca_file=files["ca"], tls_cert_file=files["cert"], tls_key_file=files["key"])}
    )["acme"]
    assert route.tls is not None
    assert (route.tls.verify_mode, route.tls.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("name", ["missing", "folder", "der", "nonsense", "empty"])
def test_wrong_authorities(files: dict[str, str], name: str) -> None:
    """A file that holds no certificates, for whatever reason."""
    assert problem(tls_ca_file=files[name]).startswith(f"[accounts.acme] tls_ca_file = {files[name]!r}: ")
    assert problem(tls_ca_file="a\0b") == r"[accounts.acme] tls_ca_file = 'a\x00b': cannot be read: not a path"


@pytest.mark.parametrize(
    ("cert", "key"),
    [
        *(
            ("cert", "other_key"),
            ("cert", "encrypted_key"),
            ("cert", "nonsense"),
            ("cert", "cert"),
            ("cert", "missing"),
        ),
        *(("key", "key"), ("empty", "key"), ("missing", "key"), ("ca", "key"), ("folder", "key")),
    ],
)
def test_wrong_certificates(files: dict[str, str], cert: str, key: str) -> None:
    """Certificate and key belong together; nobody is asked for a password."""
    said = problem(tls_cert_file=files[cert], tls_key_file=files[key])
    assert said.startswith("[accounts.acme] tls_")
    assert files[cert] in said or files[key] in said


def test_half_a_certificate(files: dict[str, str]) -> None:
    """One without the other."""
    both = "tls_cert_file and tls_key_file belong together: set both or neither"
    assert problem(tls_cert_file=files["cert"]) == problem(tls_key_file=files["key"]) == f"[accounts.acme] {both}"


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """One line for each account."""
    lines = []
    with pytest.raises(ConfigError) as raised:
        routes_of({name: account(tls_ca_file=str(tmp_path / name)) for name in ("a", "b")})
    lines = str(raised.value).split("\n")
    assert [line.split(" ")[0] for line in lines] == ["[accounts.a]", "[accounts.b]"]


def test_proxy() -> None:
    """Credentials are taken out of the URL, decoded, and not shown."""
    proxy = routes_of({"acme": account(proxy="http://us%C3%A9r:p%40s%3As@[::1]:3128")})["acme"].proxy
    assert proxy == Proxy("::1", 3128, "Basic dXPDqXI6cEBzOnM=")
    assert repr(proxy) == "Proxy('::1', 3128)"
    assert routes_of({"acme": account(proxy="http://proxy.example:1")})["acme"].proxy == Proxy("proxy.example", 1, None)


@pytest.mark.parametrize("url", ["http://user:s3cr3t@", "http://user:s3cr3t@x", "http://user:s3cr3t@x:port", "s3cr3t"])
def test_wrong_proxies(url: str) -> None:
    """What is wrong is not quoted."""
    assert problem(proxy=url) == '[accounts.acme] proxy must look like "http://proxy.example:3128"'
