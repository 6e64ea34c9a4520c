"""The rules between the settings of the Kafka clients."""

from importlib.util import find_spec
from typing import Any

import pytest

from worker.errors import ConfigError
from worker.kafka.client import Connection
from worker.kafka.settings import KafkaSettings

SASL: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_username": "cartsync", "sasl_password": "hunter2"}


def test_defaults_pass() -> None:
    """The times that the design names keep the rules between them."""
    KafkaSettings(bootstrap_servers="kafka:9092", security_protocol="SSL").check()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bootstrap_servers": ""}, "bootstrap_servers"),
        ({"group_id": ""}, "group_id"),
        ({"state_topic": "orders.events"}, "different topics"),
        ({"results_topic": "cartsync.dlq"}, "different topics"),
        ({"results_topic": "", "results_with_reasons": True}, "no results_topic"),
        ({"security_protocol": "SASL_SSL"}, "sasl_username"),
        ({"tls_cert_file": "cert.pem", "security_protocol": "SSL"}, "tls_key_file"),
        ({"heartbeat_s": 11.0}, "session_timeout"),
        ({"group_request_timeout_s": 49.0}, "rebalance_timeout"),
        ({"commit_timeout_s": 56.0}, "transaction_timeout"),
        ({"transaction_timeout_s": 901.0}, "at most 900s"),
    ],
)
def test_broken_rule_is_named(changes: dict[str, Any], named: str) -> None:
    """A setting that breaks a rule is refused in words that name it."""
    with pytest.raises(ConfigError, match=named):
        KafkaSettings(**{"bootstrap_servers": "127.0.0.1:9092"} | changes).check()


OAUTH: dict[str, Any] = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "oauth_token_url": "https://login.example/token",
    "oauth_client_id": "cartsync",
    "oauth_client_secret": "hunter2",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            SASL | {"security_protocol": "PLAINTEXT"},
            "sasl_username is set, but security_protocol PLAINTEXT uses no SASL",
        ),
        (SASL | {"security_protocol": "SSL"}, "sasl_username is set, but security_protocol SSL uses no SASL"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism is set, but security_protocol PLAINTEXT"),
        ({"tls_ca_file": "ca.pem"}, "tls_ca_file is set, but security_protocol PLAINTEXT uses no TLS"),
        (SASL | {"security_protocol": "SASL_PLAINTEXT", "tls_key_password": "x"}, "tls_key_password is set, but"),
        ({"oauth_extensions": {"logicalCluster": "lkc-1"}}, "oauth_extensions is set"),
        (SASL | {"oauth_client_id": "x"}, "oauth_client_id is set, but sasl_mechanism SCRAM-SHA-512 does not use it"),
        (SASL | {"kerberos_service_name": "broker"}, "kerberos_service_name is set, but sasl_mechanism SCRAM"),
        (OAUTH | {"sasl_password": "x"}, "sasl_password is set, but sasl_mechanism OAUTHBEARER does not use it"),
        (
            OAUTH | {"oauth_client_secret": ""},
            "OAUTHBEARER needs oauth_token_url and oauth_client_id and oauth_client_secret",
        ),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}, "AWS_MSK_IAM needs aws_region"),
        (
            {"bootstrap_servers": "127.0.0.1:1,kafka:9092"},
            "security_protocol PLAINTEXT would send .* unencrypted to kafka",
        ),
        ({"bootstrap_servers": "[2001:db8::1]:9092"}, "unencrypted to 2001:db8::1"),
        (
            SASL | {"bootstrap_servers": "10.0.0.1:9092", "security_protocol": "SASL_PLAINTEXT"},
            "unencrypted to 10.0.0.1",
        ),
    ],
)
def test_security_that_would_not_be(changes: dict[str, Any], said: str) -> None:
    """What is set without effect is refused, and so is a network that can listen, unless that is asked for."""
    with pytest.raises(ConfigError, match=said) as caught:
        KafkaSettings(**{"bootstrap_servers": "127.0.0.1:9092"} | changes).check()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        *({"bootstrap_servers": each} for each in ("localhost:9092", "127.0.0.1:1, 127.0.0.1:2", "[::1]:9092")),
        *(
            {"bootstrap_servers": "kafka:9092", "allow_plaintext": True} | each
            for each in ({}, SASL | {"security_protocol": "SASL_PLAINTEXT"})
        ),
        *({"bootstrap_servers": "kafka:9092"} | each for each in (SASL, OAUTH, SASL | {"tls_ca_file": "ca.pem"})),
        {
            "bootstrap_servers": "kafka:9092",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "AWS_MSK_IAM",
            "aws_region": "eu-west-1",
        },
        {"bootstrap_servers": "kafka:9092", "security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"},
        {
            "bootstrap_servers": "kafka:9092",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "GSSAPI",
            "kerberos_service_name": "broker",
        },
    ],
)
def test_security_that_is(changes: dict[str, Any]) -> None:
    """What fits together is taken."""
    KafkaSettings(**changes).check()


@pytest.mark.parametrize(("mechanism", "extra"), [("GSSAPI", "gssapi"), ("AWS_MSK_IAM", "msk")])
def test_package_that_is_not_there(mechanism: Any, extra: str) -> None:
    """A mechanism that needs one more package names the extra that brings it."""
    package = {"gssapi": "gssapi", "msk": "aws_msk_iam_sasl_signer"}[extra]
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    region = "eu-west-1" if extra == "msk" else ""
    settings = KafkaSettings(
        bootstrap_servers="kafka:9092", security_protocol="SASL_SSL", sasl_mechanism=mechanism, aws_region=region
    )
    with pytest.raises(ConfigError, match=rf"cartsync\[{extra}\]"):
        Connection(settings)


def test_credentials_are_not_shown() -> None:
    """The text of the settings has all of them but the passwords."""
    shown = repr(
        KafkaSettings(bootstrap_servers="kafka:9092", tls_key_password="sesame", oauth_client_secret="open", **SASL)
    )
    assert "hunter2" not in shown
    assert "sesame" not in shown
    assert "open" not in shown
    assert "sasl_username='cartsync'" in shown
    assert "rebalance_timeout_s=45.0" in shown


def test_one_fence_for_each_partition() -> None:
    """Owners of different partitions, topics and applications do not fence each other."""
    settings = KafkaSettings(bootstrap_servers="kafka:9092", transactional_id_prefix="shop")
    assert settings.transactional_id(7) == "shop.orders.events.7"


@pytest.mark.parametrize("file", ["tls_ca_file", "tls_cert_file"])
def test_unusable_certificate(file: str) -> None:
    """A certificate file that is not there is the operator's error, before anything is connected."""
    files: dict[str, Any] = {file: "/nowhere.pem"} | (
        {"tls_key_file": "/nowhere.pem"} if file == "tls_cert_file" else {}
    )
    with pytest.raises(ConfigError, match=file):
        Connection(KafkaSettings(bootstrap_servers="kafka:9092", security_protocol="SSL", **files))
