"""The rules between the settings of the Kafka clients."""

from typing import Any

import pytest

from worker.errors import ConfigError
from worker.kafka.client import Connection
from worker.kafka.settings import KafkaSettings

SASL: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_username": "cartsync", "sasl_password": "hunter2"}


def test_defaults_pass() -> None:
    """The times that the design names keep the rules between them."""
    KafkaSettings(bootstrap_servers="kafka:9092").check()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bootstrap_servers": ""}, "bootstrap_servers"),
        ({"group_id": ""}, "group_id"),
        ({"state_topic": "orders.events"}, "three topics"),
        ({"security_protocol": "SASL_SSL"}, "sasl_username"),
        ({"tls_cert_file": "cert.pem"}, "tls_key_file"),
        ({"heartbeat_s": 11.0}, "session_timeout"),
        ({"group_request_timeout_s": 49.0}, "rebalance_timeout"),
        ({"commit_timeout_s": 56.0}, "transaction_timeout"),
        ({"transaction_timeout_s": 901.0}, "at most 900s"),
    ],
)
def test_broken_rule_is_named(changes: dict[str, Any], named: str) -> None:
    """A setting that breaks a rule is refused in words that name it."""
    with pytest.raises(ConfigError, match=named):
        KafkaSettings(**{"bootstrap_servers": "kafka:9092"} | changes).check()


def test_credentials_are_not_shown() -> None:
    """The text of the settings has all of them but the passwords."""
    shown = repr(KafkaSettings(bootstrap_servers="kafka:9092", tls_key_password="sesame", **SASL))
    assert "hunter2" not in shown
    assert "sesame" not in shown
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
