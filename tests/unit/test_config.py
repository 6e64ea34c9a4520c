"""The configuration: where settings come from, what they may be, and what is said when they are wrong."""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from worker import providers
from worker.config import (
    KNOWN_PROVIDERS,
    Config,
    KafkaSection,
    account_from,
    configured_accounts,
    format_duration,
    http_section,
    parse_duration,
    worker_settings_from,
)
from worker.config.accounts import ACCOUNT_SECTIONS, AccountSection, AtaraPaySection, QliroSection, SequraSection
from worker.config.receiving import CallerSection
from worker.config.sources import SECRETS
from worker.config.values import format_size, parse_size
from worker.core.placing import Placing
from worker.core.policy import DeliveryPolicy
from worker.core.trust import Trust
from worker.errors import ConfigError
from worker.kafka.settings import KafkaSettings
from worker.model.account import Account
from worker.model.callbacks import Called, Caller
from worker.ownership.context import BatchLimits
from worker.providers.atarapay.options import AtaraPayAccount
from worker.providers.qliro.options import QliroAccount
from worker.providers.registry import CALLBACKS, PROVIDERS, RECONCILERS
from worker.providers.sequra.options import SequraAccount
from worker.sandbox.registry import SANDBOXES
from worker.tools.scenario.models import MODELS

SECRET = "s3cr3t-99"
EXAMPLE = Path(__file__).parents[2] / "deploy" / "cartsync.example.toml"
MINIMAL = """
[kafka]
bootstrap_servers = "broker:9092"
[accounts.acme]
provider = "sequra"
merchant_id = "acme"
base_url = "https://sandbox.example"
username = "user"
password = "s3cr3t-99"
"""

MISSING = "{0}: {1} is missing; set {2} {1} or CARTSYNC_{3}"

Write = Callable[..., Path]


def password_of(accounts: Mapping[str, Account]) -> str:
    """Of the one that is called acme."""
    account = accounts["acme"]
    assert isinstance(account, SequraAccount)
    return account.password


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the folder in which the test runs."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str = MINIMAL, name: str = "cartsync.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problems(**environ: str) -> list[str]:
    """The lines that a refused configuration is refused with."""
    with pytest.raises(ConfigError) as caught:
        Config.load(environ=environ)
    assert SECRET not in str(caught.value)
    return str(caught.value).splitlines()


def account_problem(**members: Any) -> str:
    """What is said of an account with these members."""
    with pytest.raises(ConfigError) as caught:
        account_from("acme", members, scenario=True)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# --- the name in the group ---


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "pod-1-8080"),
        ({"CARTSYNC_HTTP__PORT": "9000"}, "pod-1-9000"),
        ({"CARTSYNC_HTTP__PORT": "0"}, ""),
        ({"CARTSYNC_KAFKA__GROUP_INSTANCE_ID": "cart-0"}, "cart-0"),
        ({"CARTSYNC_KAFKA__SESSION_TIMEOUT": "46s"}, ""),
        ({"CARTSYNC_KAFKA__SESSION_TIMEOUT": "46s", "CARTSYNC_KAFKA__GROUP_INSTANCE_ID": "cart-0"}, "cart-0"),
    ],
)
def test_name_in_the_group(write: Write, environ: dict[str, str], name: str) -> None:
    """Of the machine and the port, unless it is set, or a group would wait longer for a dead worker that has one."""
    write()
    assert Config.load(environ=environ).member_name("pod-1") == name


def test_no_name_in_the_group(write: Write) -> None:
    """Who wants none says so in the file."""
    write(MINIMAL.replace("[accounts", 'group_instance_id = ""\n[accounts', 1))
    assert Config.load(environ={}).member_name("pod-1") == ""


@pytest.mark.parametrize("name", ["a b", "a/b", "ü", "..", "x" * 201])
def test_names_that_kafka_would_refuse(write: Write, name: str) -> None:
    """They are refused where they are set."""
    write()
    (problem,) = problems(CARTSYNC_KAFKA__GROUP_INSTANCE_ID=name)
    assert "GROUP_INSTANCE_ID" in problem
    assert 'must be "auto", "", or at most 200 letters, digits, dots, hyphens and underscores' in problem


# --- durations ---


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("8s", 8), ("1.5m", 90), ("6h", 21600), (" 0s ", 0), ("3 h", 10800)]
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number with a unit."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [8, 8.5, "8", "0.5"])
def test_duration_without_unit(value: object) -> None:
    """A number without a unit is refused, and told what to write instead."""
    with pytest.raises(ValueError, match=f'needs a unit: write "{value}s"'):
        parse_duration(value)


@pytest.mark.parametrize("value", ["", "s", "-1s", "1d", "1h30m", "٣s", True, None, "1e3s", "inf s", ["1s"]])
def test_wrong_durations(value: object) -> None:
    """Anything else is refused with examples."""
    with pytest.raises(ValueError, match="250ms"):
        parse_duration(value)


@pytest.mark.parametrize(("text", "seconds"), [("800d", 69_120_000.0), ("30 d", 2_592_000.0), ("0", 0.0)])
def test_how_long_orders_are_kept(text: str, seconds: float) -> None:
    """In days; 0 is for ever."""
    worker = worker_settings_from({"keep_settled": text})
    assert worker.keep_settled_s == seconds
    assert worker_settings_from({"keep_settled": worker.model_dump(mode="json")["keep_settled_s"]}) == worker


@pytest.mark.parametrize("text", ["29d", "36501d", "800", "19200h", "", "0d"])
def test_how_long_orders_are_not_kept(text: str) -> None:
    """Too short would close orders that come back; what is no number of days is refused with its bounds."""
    with pytest.raises(ConfigError, match=r'keep_settled.*must be from "30d"'):
        worker_settings_from({"keep_settled": text})


@given(st.integers(0, 10**9))
def test_duration_round_trip(milliseconds: int) -> None:
    """What is printed reads as it was."""
    text = format_duration(milliseconds / 1000)
    assert parse_duration(text) == pytest.approx(milliseconds / 1000, rel=1e-5)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "200ms"), (90, "90s"), (10800, "3h"), (0, "0s"), (300, "5m")])
def test_duration_units(seconds: float, text: str) -> None:
    """It is printed in the largest unit that keeps it whole."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size", "shown"), [("256MiB", 2**28, "256MiB"), ("1024 MiB", 2**30, "1GiB"), (" 3GiB", 3 * 2**30, "3GiB")]
)
def test_sizes(text: str, size: int, shown: str) -> None:
    """A size is a whole number with a unit, and is printed in the largest one that keeps it whole."""
    assert parse_size(text) == size
    assert format_size(size) == shown


@pytest.mark.parametrize("value", ["", "256", 256, "0MiB", "1.5GiB", "1025GiB", "256MB", "-1MiB", None, "٣MiB"])
def test_wrong_sizes(value: object) -> None:
    """Anything else is refused with its bounds."""
    with pytest.raises(ValueError, match='from "1MiB" to "1024GiB"'):
        parse_size(value)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('kind = "disk"', '[store] kind = "disk" needs path'),
        ('path = "/tmp/x"', '[store] path has no effect without kind = "disk"'),
        ('kind = "memory"\ncache = "1GiB"', '[store] cache has no effect without kind = "disk"'),
    ],
)
def test_where_orders_are_kept(write: Write, section: str, expected: str) -> None:
    """A disk needs a folder; a setting that would have no effect is a mistake."""
    write(f"{MINIMAL}[store]\n{section}\n")
    assert expected in problems()[0]
    write(f'{MINIMAL}[store]\nkind = "disk"\npath = "orders"\ncache = "1GiB"\n')
    assert Config.load(environ={}).redacted()["store"] == {"kind": "disk", "path": "orders", "cache": "1GiB"}


# --- where settings come from ---


def test_defaults(write: Write) -> None:
    """What is not set is as the core, the protocol and the Kafka measurements have it."""
    write()
    config = Config.load(environ={})
    assert config.rules() == DeliveryPolicy()
    given = KafkaSettings(bootstrap_servers="broker:9092", history_topic="cartsync.state.history")
    assert replace(given, history_topic=None).history == given.history
    assert config.kafka.group_instance_id == "auto"  # which is up to the worker
    assert KafkaSettings(**config.kafka.members() | {"group_instance_id": ""}) == given
    assert config.worker.commit_interval_s == BatchLimits().commit_interval_s
    assert config.worker.commits_per_second == BatchLimits().commits_per_s
    assert config.worker.max_batch_records == BatchLimits().batch_records_max
    assert config.worker.max_inbox_records == BatchLimits().inbox_records_max
    expected = SequraAccount("acme", "sequra", "https://sandbox.example", "acme", "user", SECRET)
    assert config.merchant_accounts() == {"acme": expected}


def test_kafka_members_are_those_of_its_settings() -> None:
    """What can be set of Kafka is what the Kafka part knows."""
    assert set(KafkaSection.model_fields) == set(KafkaSettings.__struct_fields__)


def test_known_providers() -> None:
    """The providers that can be named are the folders that there are."""
    folders = {path.parent.name for path in Path(providers.__file__).parent.glob("*/options.py")}
    assert folders == KNOWN_PROVIDERS


def test_each_provider_is_registered_everywhere() -> None:
    """One that has a folder and no row would fail at the first order, callback or comparison, or cannot be tried."""
    for table in (PROVIDERS, CALLBACKS, RECONCILERS, ACCOUNT_SECTIONS, SANDBOXES, MODELS):
        assert set(table) == KNOWN_PROVIDERS


@pytest.mark.parametrize("provider", sorted(KNOWN_PROVIDERS))
def test_account_of_a_scenario(provider: str) -> None:
    """A scenario need not say more of an account than its provider."""
    account = account_from("acme", {"provider": provider}, scenario=True)
    assert (account.name, account.provider, type(account)) == ("acme", provider, ACCOUNT_SECTIONS[provider].made)


@pytest.mark.parametrize("provider", sorted(KNOWN_PROVIDERS))
def test_secrets_of_accounts_may_be_in_files(provider: str) -> None:
    """Each that is no part of an address, so none is shown in a mistake either."""
    fields = ACCOUNT_SECTIONS[provider].model_fields.items()
    secret = [name for name, field in fields if "SecretStr" in repr(field.annotation)]
    assert "callback_secrets" in secret
    assert [name for name in secret if not name.endswith(SECRETS)] == ["proxy"]


@pytest.mark.parametrize("provider", sorted(KNOWN_PROVIDERS))
def test_keys_of_callbacks_reach_their_reader(provider: str) -> None:
    """What a provider's calls are verified by is a setting of its accounts, read by the receiver, and handed on."""
    keys = set(CALLBACKS[provider].account_keys)
    for members in (
        ACCOUNT_SECTIONS[provider].model_fields,
        CallerSection.model_fields,
        Caller.__struct_fields__,
        Called.__struct_fields__,
    ):
        assert keys <= set(members)


def test_setting_that_no_account_has() -> None:
    """A section whose settings its account would not get, or with another default, cannot be declared."""
    with pytest.raises(TypeError, match="tempo is no member of SequraAccount"):

        class Wider(SequraSection):
            tempo: int = 1

    with pytest.raises(TypeError, match="statistics has another default in SequraAccount"):

        class Other(SequraSection):
            statistics: bool = True


def test_order_of_sources(write: Write) -> None:
    """The environment goes over the file, secret files go over both."""
    write('[worker]\nlease = "25s"\nsettle = "40s"\n' + MINIMAL)
    secrets = write(SECRET + "-b\n", "secrets/cartsync_accounts__acme__password").parent
    environ = {
        "CARTSYNC_WORKER__LEASE": "21s",
        "CARTSYNC_WORKER__NOT_FOUND_DELAYS": "10s, 1m",
        "CARTSYNC_WORKER__CONFLICT_ATTEMPTS": "",
        "CARTSYNC_ACCOUNTS__ACME__PASSWORD": "12345",
        "CARTSYNC_HTTP__PORT": "9000",
        "CARTSYNC_WORKER__SENDING": "false",
    }
    config = Config.load(environ=environ)
    assert (config.worker.lease_s, config.worker.settle_s) == (21.0, 40.0)
    assert config.worker.not_found_delays_s == (10.0, 60.0)
    assert (config.http.port, config.worker.sending, config.worker.conflict_attempts) == (9000, False, 4)
    assert password_of(config.merchant_accounts()) == "12345"
    assert config.origin("worker", "lease") == "CARTSYNC_WORKER__LEASE"
    assert config.origin("worker", "settle") == "cartsync.toml: [worker] settle"
    assert config.origin("worker", "warm") == "default"
    with_secrets = Config.load(environ=environ | {"CARTSYNC_SECRETS_DIR": str(secrets)})
    assert password_of(with_secrets.merchant_accounts()) == SECRET + "-b"


def test_named_files(write: Write) -> None:
    """The file is the one that is given, else the one of the environment."""
    one, other = write(MINIMAL, "one.toml"), write(MINIMAL.replace("acme", "beta"), "other.toml")
    assert set(Config.load(one, environ={"CARTSYNC_CONFIG": str(other)}).accounts) == {"acme"}
    assert set(Config.load(environ={"CARTSYNC_CONFIG": str(other)}).accounts) == {"beta"}


def test_environment_alone(write: Write) -> None:
    """No file is needed."""
    names = {"PROVIDER": "sequra", "MERCHANT_ID": "acme", "BASE_URL": "https://x", "USERNAME": "u", "PASSWORD": "p"}
    environ = {f"CARTSYNC_ACCOUNTS__ACME__{name}": value for name, value in names.items()}
    config = Config.load(environ=environ | {"CARTSYNC_KAFKA__BOOTSTRAP_SERVERS": "a:1,b:2"})
    assert config.kafka.bootstrap_servers == "a:1,b:2"
    assert password_of(config.merchant_accounts()) == "p"


def test_account_names_as_variables(write: Write) -> None:
    """A variable finds the account of the file whose name no variable could spell."""
    write(MINIMAL.replace("accounts.acme", 'accounts."My-Shop.es"'))
    config = Config.load(environ={"CARTSYNC_ACCOUNTS__MY_SHOP_ES__CONCURRENCY": "7"})
    assert {name: section.concurrency for name, section in config.accounts.items()} == {"My-Shop.es": 7}


def test_password_file(write: Write) -> None:
    """A password may stand in a file, found from the folder of the configuration; one line feed is cut off."""
    write("p w \r\n", "secrets/acme")
    write(MINIMAL.replace(f'password = "{SECRET}"', 'password_file = "secrets/acme"'))
    environ = {"CARTSYNC_ACCOUNTS__ACME__PASSWORD": "less"}
    with pytest.raises(ConfigError, match="start or end with a space"):
        Config.load(environ=environ)
    write("p w\n", "secrets/acme")
    assert password_of(Config.load(environ=environ).merchant_accounts()) == "p w"


def test_password_file_of_kafka(write: Write) -> None:
    """So may Kafka's."""
    secret = write(SECRET, "scram")
    write(MINIMAL + "[http]\nport = 1\n")
    config = Config.load(environ={"CARTSYNC_KAFKA__SASL_PASSWORD_FILE": str(secret)})
    assert config.kafka.members()["sasl_password"] == SECRET


def test_service_links_are_no_settings(write: Write) -> None:
    """What Kubernetes puts into the environment for a service called cartsync does not stop the start."""
    write()
    environ = {
        "CARTSYNC_SERVICE_HOST": "10.0.0.1",
        "CARTSYNC_SERVICE_PORT_HTTP": "8080",
        "CARTSYNC_PORT": "tcp://10.0.0.1:8080",
        "CARTSYNC_PORT_8080_TCP_ADDR": "10.0.0.1",
        "CARTSYNC_HTTP_PORT": "tcp://10.0.0.1:8080",
    }
    assert Config.load(environ=environ).http.port == 8080


# --- what is wrong ---


def test_all_mistakes_at_once(write: Write) -> None:
    """Every mistake is a line of its own that says where, what, and what to do."""
    write(
        """
        [kafak]
        [worker]
        leese = "20s"
        settle = 30
        conflict_attempts = 0
        [accounts.acme]
        provider = "seqra"
        merchant_id = ".."
        base_url = "http://x"
        username = "us:er"
        password = "s3cr3t-99\\n-"
        [http]
        port = 99999
        [log]
        format = "jsn"
        """
    )
    assert problems(CARTSYNC_WORKER__WRAM="1m", CARTSYNC_WORKER__WARM="x", CARTSYNC_HTTP_PORT="1") == [
        "CARTSYNC_HTTP_PORT: not a setting; settings are called CARTSYNC_SECTION__NAME, such as CARTSYNC_WORKER__LEASE",
        "cartsync.toml: [accounts.acme] provider = 'seqra': unknown provider; did you mean sequra?",
        MISSING.format("[kafka] bootstrap_servers", "bootstrap_servers", "[kafka]", "KAFKA__BOOTSTRAP_SERVERS"),
        'cartsync.toml: [worker] settle = 30: a duration needs a unit: write "30s" for seconds (units: ms, s, m, h)',
        "cartsync.toml: [worker] conflict_attempts = 0: should be greater than or equal to 1",
        'CARTSYNC_WORKER__WARM = \'x\': must be a duration with a unit, such as "250ms", "8s", "15m" or "6h"',
        "cartsync.toml: [worker] leese: unknown setting [worker] leese; did you mean lease?",
        "CARTSYNC_WORKER__WRAM: unknown setting [worker] wram; did you mean warm?",
        (
            "cartsync.toml: [accounts.acme] base_url = 'http://x': must start with https:// (http:// is for 127.0.0.1 "
            "and localhost; elsewhere the password and the orders would be sent unencrypted; allow_http = true permits "
            "it)"
        ),
        "cartsync.toml: [http] port = 99999: should be less than or equal to 65535",
        "cartsync.toml: [log] format = 'jsn': should be 'json', 'console' or 'auto'",
        "cartsync.toml: [kafak]: unknown setting [kafak]; did you mean kafka?",
    ]


def test_mistakes_in_what_one_provider_wants(write: Write) -> None:
    """They are told once it is clear which one it is."""
    write(
        MINIMAL.replace('"acme"', '".."').replace('"user"', '"us:er"').replace('"s3cr3t-99"', '"s3cr3t-99\\n-"')
        + 'callback_secrets = ["short"]\n'
    )
    account = "cartsync.toml: [accounts.acme]"
    assert problems() == [
        f"{account} callback_secrets: must each have 32 or more characters; `openssl rand -hex 32` generates one",
        f"{account} merchant_id = '..': must not be . or .. (it is part of a URL's path)",
        f"{account} username: must not contain a colon (HTTP basic authentication, RFC 7617, does not allow it)",
        f"{account} password: must not contain control characters (it is sent in an HTTP header)",
    ]


def test_secrets_of_callbacks(write: Write, tmp_path: Path) -> None:
    """They come as a list, or one a line from a file; five are too many."""
    secrets = [f"{number:032d}" for number in range(5)]
    (tmp_path / "secrets").write_text("\n".join(secrets[:2]) + "\n", encoding="utf-8")
    write(MINIMAL + f'callback_secrets_file = "{tmp_path}/secrets"\n')
    section = Config.load(environ={}).accounts["acme"]
    assert [secret.get_secret_value() for secret in section.callback_secrets] == secrets[:2]
    write(MINIMAL + f"[callbacks]\nrecord_secrets = {secrets[:2]}\n")
    trust, other = Config.load(environ={}).callbacks.trust(), Trust(secrets[1:2])
    assert trust.sign(b"k", b"{}") == Trust(secrets[:1]).sign(b"k", b"{}")
    trust.check(b"k", b"{}", other.sign(b"k", b"{}"))
    write(MINIMAL + f"[callbacks]\nrecord_secrets = {secrets}\n")
    assert problems() == [
        (
            "cartsync.toml: [callbacks] record_secrets: "
            "must be at most 4: the one that signs, and former ones that are still accepted"
        )
    ]


def test_missing_members_of_an_account(write: Write) -> None:
    """What an account lacks is named with the table where it is missing."""
    write(MINIMAL.replace("merchant_id", "merchantid"))
    table = "cartsync.toml: [accounts.acme]"
    assert problems() == [
        MISSING.format(table, "merchant_id", "[accounts.acme]", "ACCOUNTS__ACME__MERCHANT_ID"),
        f"{table} merchantid: unknown setting [accounts.acme] merchantid; did you mean merchant_id?",
    ]


def test_misspelt_password_is_not_shown(write: Write) -> None:
    """The value of an unknown setting may be a secret."""
    write(MINIMAL.replace("password =", "pasword ="))
    assert any("did you mean password?" in line for line in problems())


HUNTER = "hunter2"


@pytest.mark.parametrize(
    "environ",
    [
        {"CARTSYNC_ACCOUNTS__ACME": f"user:{HUNTER}"},
        {"CARTSYNC_ACCOUNTS": HUNTER},
        {"CARTSYNC_KAFKA": f"broker:9092 {HUNTER}"},
        {"CARTSYNC_ACCOUNTS__ACME__PASWORD": HUNTER},
        {"CARTSYNC_ACCOUNTS__ACME__CONCURRENCY": HUNTER},
        {"CARTSYNC_ACCOUNTS__ACME__BASE_URL": HUNTER},
        {"CARTSYNC_ACCOUNTS__ACME__MERCHANT_ID": f" {HUNTER}"},
        {"CARTSYNC_ACCOUNTS__ACME__PROVIDER": HUNTER},
        {"CARTSYNC_ACCOUNTS__ACME__PLATFORM": HUNTER},
        {"CARTSYNC_ACCOUNTS__ACME__PASSWORD__X": HUNTER},
        {"CARTSYNC_ACCOUNTS__OTHER": HUNTER},
        {"CARTSYNC_HTTP__TOKEN": HUNTER},
        {"CARTSYNC_KAFKA__OAUTH_CLIENT_SECRET__X": HUNTER},
        {"CARTSYNC_KAFKA__OAUTH_EXTENSIONS": HUNTER},
        {"CARTSYNC_HUNTER": HUNTER},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_what_came_from_the_environment_is_not_quoted(write: Write, environ: dict[str, str]) -> None:
    """Where a secret may have slipped into another setting, that setting is named and nothing of it shown."""
    write(MINIMAL)
    lines = problems(**environ)
    assert HUNTER not in "\n".join(lines)
    assert all(line.startswith((next(iter(environ)), "cartsync.toml", "[")) for line in lines)


def test_mistyped_members_of_an_account_are_not_quoted(write: Write) -> None:
    """A file may hold a secret at a place that is not made for it."""
    write(MINIMAL + f'platform = "{HUNTER}"\n[accounts.acme.cancellation_reasons]\nx = ["{HUNTER}"]\n')
    assert HUNTER not in "\n".join(problems())


def test_secret_files_that_cannot_be_read(write: Write) -> None:
    """Each secret file that is missing, too large or no text is a problem, and the password is not missing, too."""
    write(MINIMAL.replace(f'password = "{SECRET}"', 'password_file = "none"'))
    (line,) = problems()
    assert line.startswith("cartsync.toml: [accounts.acme] password_file: ")
    assert line.endswith("none: cannot be read: No such file or directory")
    secrets = write("x" * 70_000, "secrets/CARTSYNC_KAFKA__SASL_PASSWORD").parent
    (secrets / "CARTSYNC_KAFKA__TLS_KEY_PASSWORD").write_bytes(b"\xff")
    (secrets / "..data").write_text("not ours", encoding="utf-8")
    assert problems(CARTSYNC_SECRETS_DIR=str(secrets))[1:] == [
        f"{secrets}/CARTSYNC_KAFKA__SASL_PASSWORD: larger than 65536 bytes: not a secret file",
        f"{secrets}/CARTSYNC_KAFKA__TLS_KEY_PASSWORD: not UTF-8",
    ]


def test_password_twice(write: Write) -> None:
    """A password and a file for it in one place contradict each other."""
    write(MINIMAL + 'password_file = "acme"\n')
    write("x", "acme")
    (line,) = problems()
    assert line == "cartsync.toml: [accounts.acme] password_file: password is also set; keep one of the two"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[worker]\nlease = "8s"\n', "[worker] attempt_deadline (8s) must be shorter than lease (8s)"),
        ('[worker]\ncommit_interval = "5s"\n', "[worker] commit_interval (5s) must be shorter than"),
        (
            '[worker]\nattempt_deadline = "33500ms"\nlease = "60s"\n',
            "[worker] attempt_deadline (33500ms) must be shorter by at least 1s than [kafka] rebalance_timeout",
        ),
    ],
)
def test_times_that_do_not_fit(write: Write, text: str, expected: str) -> None:
    """Times are checked against each other, across sections too."""
    write(MINIMAL + text)
    assert expected in "\n".join(problems())


def test_checks_of_others(write: Write) -> None:
    """DeliveryPolicy that the configuration does not know itself are held, too."""
    write(MINIMAL.replace('"broker:9092"', '"localhost:9092"\nheartbeat = "20s"'))

    def check(config: Config) -> None:
        KafkaSettings(**config.kafka.members()).check()

    with pytest.raises(ConfigError, match="a third of session_timeout"):
        Config.load(environ={}, checks=[check])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[worker", "cartsync.toml: not TOML: "), ("lease = 1\n", "unknown setting [lease]"), ("", "bootstrap_")],
)
def test_files_that_are_wrong_as_a_whole(write: Write, text: str, expected: str) -> None:
    """A file that is no TOML, or no configuration, is refused with its name."""
    write(text)
    assert expected in problems()[-1 if "lease" in text else 0]


def test_files_that_cannot_be_read(write: Write) -> None:
    """A file or folder that is named has to be there."""
    assert problems(CARTSYNC_CONFIG="none.toml") == [
        "none.toml: cannot be read: No such file or directory; name another with --config"
    ]
    write()
    assert problems(CARTSYNC_SECRETS_DIR="none")[0].startswith("CARTSYNC_SECRETS_DIR: none: cannot be read")
    Path("cartsync.toml").write_bytes(b"\xff")
    assert problems() == ["cartsync.toml: not UTF-8"]


@pytest.mark.parametrize(
    "text",
    [
        "accounts = 3",
        "[accounts]\nacme = 3",
        '[worker.lease]\na = "1s"',
        "worker = []",
        '[kafka]\nbootstrap_servers = [1, "a"]\n',
    ],
)
def test_wrong_shapes(write: Write, text: str) -> None:
    """Whatever stands in the file, the answer is a list of problems."""
    write(text)
    assert problems(CARTSYNC_WORKER__LEASE="20s", CARTSYNC_WORKER__LEASE__X="1")


def test_account_names(write: Write) -> None:
    """A name with a slash could not be told from the reference in an event's subject."""
    write(MINIMAL.replace("accounts.acme", 'accounts."a/b"'))
    (line,) = problems()
    assert "must not contain a slash" in line


def test_account_names_beside_other_mistakes(write: Write) -> None:
    """A wrong name is told with all else, and nobody is sent to a variable that cannot be."""
    write(MINIMAL + '[accounts."a/b"]\nprovider = "sequra"\n[accounts."Ñandú 1"]\n[accounts."My-Shop.es"]\n')
    lines = problems()
    assert any("must not contain a slash" in line for line in lines)
    missing = "cartsync.toml: [accounts.{0}]: base_url is missing; set [accounts.{0}] base_url"
    for name in ("a/b", "Ñandú 1"):
        assert missing.format(name) in lines
    assert f"{missing.format('My-Shop.es')} or CARTSYNC_ACCOUNTS__MY_SHOP_ES__BASE_URL" in lines


def test_secret_that_is_missing(write: Write) -> None:
    """The way that is recommended is named: a file."""
    write("\n".join(line for line in MINIMAL.splitlines() if "password" not in line))
    table, name = "[accounts.acme]", "password_file"
    said = f"password is missing; set {table} {name} or CARTSYNC_ACCOUNTS__ACME__PASSWORD_FILE"
    assert problems() == [f"cartsync.toml: {table}: {said}"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f'{MINIMAL}platform = "x"', "[accounts.acme] platform"),
        (f'{MINIMAL}cancellation_reasons = "x"', "[accounts.acme] cancellation_reasons"),
        (f'http = "x"\n{MINIMAL}', "[http]"),
    ],
)
def test_tables(write: Write, text: str, where: str) -> None:
    """What has settings of its own is a table, in the words of the file and not of Python."""
    write(text)
    (line,) = problems()
    assert line.startswith(f"cartsync.toml: {where}")
    assert "should be a table" in line


def test_no_file(write: Write) -> None:
    """Who starts without any configuration learns where it would be looked for."""
    assert problems()[-1] == "there is no ./cartsync.toml, and neither --config nor CARTSYNC_CONFIG names another file"


def test_no_account(write: Write) -> None:
    """A worker without accounts would do nothing."""
    write('[kafka]\nbootstrap_servers = "a:1"\n')
    assert problems() == ["[accounts]: no account is configured; add [accounts.NAME]"]


# --- what is shown ---


def test_redacted(write: Write) -> None:
    """What is printed has the names and texts of the file, and no secret; it can be read again."""
    write(MINIMAL)
    config = Config.load(environ={"CARTSYNC_KAFKA__SASL_PASSWORD": SECRET})
    shown = config.redacted()
    assert SECRET not in str(shown) + repr(config) + str(config)
    assert shown["accounts"]["acme"]["password"] == shown["kafka"]["sasl_password"] == "***"
    assert shown["worker"]["lease"] == "20s"
    assert shown["worker"]["not_found_delays"] == ["30s", "5m", "30m", "3h"]
    assert worker_settings_from(shown["worker"]) == config.worker


def test_example_file(tmp_path: Path) -> None:
    """The example is a configuration, and shows every setting with its default."""
    text = EXAMPLE.read_text(encoding="utf-8")
    is_setting = re.compile(r"# (\[|.* = )").match
    shown = tomllib.loads(
        "\n".join(line.removeprefix("# ") if is_setting(line) else line for line in text.splitlines())
    )
    path = tmp_path / "example.toml"
    path.write_text(text.replace("/run/secrets/acme", "acme"), encoding="utf-8")
    (tmp_path / "acme").write_text("x", encoding="utf-8")
    defaults = Config.load(path, environ={}).redacted()
    assert {name: shown[name] for name in defaults if name != "accounts"} == {
        name: section for name, section in defaults.items() if name != "accounts"
    }
    names = {field.alias or name for name, field in SequraSection.model_fields.items()}
    assert set(shown["accounts"]["acme"]) - {"password_file"} == names - {"password"}
    escrow = shown["accounts"]["escrow"]
    own = set(AtaraPaySection.model_fields) - set(AccountSection.model_fields) - {"public_key", "private_key"}
    assert set(escrow) == own | {"provider", "base_url", "public_key_file", "private_key_file"}
    usual = AtaraPaySection(provider="atarapay", base_url="https://x", public_key="x", private_key="x")
    assert {name: tuple(escrow[name]) for name in own} == {name: getattr(usual, name) for name in own}
    own = set(QliroSection.model_fields) - set(SequraSection.model_fields)
    told = {"provider", "base_url", *(name.removesuffix("_s") for name in own), "api_secret_file"} - {"api_secret"}
    assert set(shown["accounts"]["hats"]) == told


def test_account_of_atarapay(write: Write) -> None:
    """Both keys are secrets and show nowhere; the merchant is a digest of one of them. Texts replace the usual ones."""
    write("kept", "private_key")
    write(
        MINIMAL[: MINIMAL.index("[accounts")]
        + """[accounts.escrow]
provider = "atarapay"
base_url = "https://api.atarapay.com/api/api"
public_key = "b8kP7A1e67s0jc3h98T8pH71dq66J0s3"
private_key_file = "private_key"
already_processed = ["Done before"]
"""
    )
    config = Config.load(environ={"CARTSYNC_ACCOUNTS__ESCROW__TOKEN_REFUSED": "no such key, wrong key"})
    account = config.merchant_accounts()["escrow"]
    assert account == AtaraPayAccount(
        name="escrow",
        provider="atarapay",
        base_url="https://api.atarapay.com/api/api",
        public_key="b8kP7A1e67s0jc3h98T8pH71dq66J0s3",
        private_key="kept",
        already_processed=("Done before",),
        token_refused=("no such key", "wrong key"),
    )
    shown = config.redacted()["accounts"]["escrow"]
    assert shown["public_key"] == shown["private_key"] == "***"
    assert account.merchant == "ea7384bb9828"
    assert "b8kP7" not in repr(account) + repr(config)


def test_scenario_account_of_atarapay() -> None:
    """What a scenario leaves out is filled in."""
    assert account_from("shop", {"provider": "atarapay"}, scenario=True) == AtaraPayAccount(
        name="shop",
        provider="atarapay",
        base_url="https://test-api.atarapay.com/api",
        public_key="public-shop",
        private_key="private-shop",
    )


def test_two_accounts_of_one_merchant(write: Write) -> None:
    """They would overwrite each other's orders: an error, however the address is written."""
    twin = (
        MINIMAL[MINIMAL.index("[accounts") :]
        .replace("acme]", "twin]")
        .replace("sandbox.example", "SANDBOX.example:443/")
    )
    write(MINIMAL + twin)
    [problem] = problems()
    assert problem.startswith("[accounts.twin] and [accounts.acme] are the same merchant acme of sequra")
    write(MINIMAL + twin.replace('merchant_id = "acme"', 'merchant_id = "other"'))
    assert set(Config.load(environ={}).accounts) == {"acme", "twin"}


def test_words_for_changed_accounts(write: Write) -> None:
    """`accept_target` is the worker's to follow, and no member of the account; the environment can say it, too."""
    write()
    assert Config.load(environ={}).accepted_targets() == {}
    found = Config.load(environ={"CARTSYNC_ACCOUNTS__ACME__ACCEPT_TARGET": "send"})
    assert found.accepted_targets() == {"acme": "send"}
    assert found.merchant_accounts() == Config.load(environ={}).merchant_accounts()
    assert "'send' or 'keep'" in problems(CARTSYNC_ACCOUNTS__ACME__ACCEPT_TARGET="yes")[0]


def test_partitioner(write: Write) -> None:
    """Unset, nothing is checked; set, it goes with what the keys are."""
    write()
    assert KafkaSettings(**Config.load(environ={}).kafka.members()).placing() is None
    given = {"CARTSYNC_KAFKA__PARTITIONER": "murmur2", "CARTSYNC_KAFKA__EVENT_KEY": "reference"}
    assert KafkaSettings(**Config.load(environ=given).kafka.members()).placing() == Placing("murmur2", "reference")
    assert "'murmur2'" in problems(CARTSYNC_KAFKA__PARTITIONER="random")[0]


def test_long_account_name(write: Write) -> None:
    """No event could name it."""
    write(MINIMAL.replace("accounts.acme", f"accounts.{'a' * 101}"))
    assert problems() == [f"[accounts.{'a' * 20}…]: an account's name must be at most 100 characters long"]
    write(MINIMAL.replace("accounts.acme", f"accounts.{'a' * 100}"))
    Config.load(environ={})


# --- accounts and settings on their own ---


def test_scenario_account() -> None:
    """A scenario may leave out nearly everything of an account."""
    expected = SequraAccount("acme", "sequra", "https://sandbox.sequrapi.com", "acme", "user", "secret")
    assert account_from("acme", {}, scenario=True) == expected
    assert account_from("b", {"merchant_id": "a/b c", "password": "p"}, scenario=True).merchant == "a/b c"
    with pytest.raises(ConfigError, match="password is missing"):
        account_from("acme", {"provider": "sequra"})


def test_qliro_account(write: Write) -> None:
    """Durations have units; the key tells merchants apart and goes into JSON alone."""
    members = {"provider": "qliro", "poll_after": ["10s", "1m"], "overdue_after": "2h", "indivisible": "last"}
    account = account_from("hats", members, scenario=True)
    assert account == QliroAccount(
        name="hats",
        provider="qliro",
        base_url="https://pago.qit.nu/checkout/adminapi",
        api_key="hats",
        api_secret="secret",
        indivisible="last",
        poll_after_s=(10.0, 60.0),
        overdue_after_s=7_200.0,
    )
    assert (account.merchant, account.send_on_confirm) == ("hats", False)
    for wrong in ({"api_key": "x" * 51}, {"api_key": ""}, {"indivisible": "never"}, {"poll_after": [60]}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            account_from("hats", {"provider": "qliro"} | wrong, scenario=True)
    table = 'provider = "qliro"\nbase_url = "https://x.example"\napi_key = "HATS"\napi_secret_file = "key"\n'
    write(f"{SECRET}\n", "key")
    write(f"[kafka]\nbootstrap_servers = 'x:1'\n[accounts.hats]\n{table}")
    config = Config.load(environ={})
    assert config.redacted()["accounts"]["hats"]["api_secret"] == "***"
    assert SECRET not in repr(config.merchant_accounts())


def test_account_options() -> None:
    """Every member of an account can be set."""
    members = {
        "store_ref": "s1",
        "platform": {"name": "shop", "version": "1"},
        "send_on_confirm": True,
        "cancellation_reasons": {"No stock!": "out_of_stock"},
        "default_cancellation_reason": "shop_cancel",
        "concurrency": 4,
        "rate_per_s": 2.5,
        "tls_ca_file": "ca.pem",
        "tls_cert_file": "cert.pem",
        "tls_key_file": "key.pem",
        "proxy": "http://user:p%40ss@proxy.example:3128",
    }
    account = account_from("acme", members, scenario=True)
    assert {name: getattr(account, name) for name in members} == members


@pytest.mark.parametrize("merchant_id", ["", ".", "..", " a", "a ", "a\nb", "a\x00", "\ud800", 7])
def test_wrong_merchants(merchant_id: object) -> None:
    """A merchant id goes into a URL and a header."""
    assert "[accounts.acme] merchant_id" in account_problem(merchant_id=merchant_id)


@pytest.mark.parametrize(
    "base_url",
    [
        *("", "sandbox.example", "ftp://x", "https://", "http://10.0.0.1", "https://u:s3cr3t-99@x"),
        *("https://x?a", "https://x#a", "https://x y", "https://x:port", "https://[::1"),
    ],
)
def test_wrong_addresses(base_url: str) -> None:
    """An address is https, with nothing but host, port and path."""
    assert "[accounts.acme] base_url" in account_problem(base_url=base_url)


@pytest.mark.parametrize(
    "proxy",
    [
        *(
            "proxy.example:3128",
            "https://proxy.example:3128",
            "http://proxy.example",
            "http://proxy.example:0",
            "http://:1",
        ),
        *(
            "http://s3cr3t-99:x",
            "http://u:s3cr3t-99@x:port",
            "http://u:s3cr3t-99@x",
            "http://u:s3cr3t-99 @x:1",
            "socks5://x:1",
        ),
        *(
            "http://x:1/path",
            "http://x:1?s3cr3t-99",
            "http://u:s3cr3t-99#@x:1",
            "http://u:s3cr3t\n-99@x:1",
            "http://[::1:1",
        ),
    ],
)
def test_wrong_proxies(proxy: str) -> None:
    """A proxy is http, with host and port; what is wrong with one shows nothing of its password."""
    problem = account_problem(proxy=proxy)
    assert "[accounts.acme] proxy: must look like" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://[::1]:3128/", "http://[::1]:3128/"),
        ("http://user:s3cr3t-99@proxy.example:3128", "http://***@proxy.example:3128"),
        ("http://s3cr3t-99@proxy.example:3128", "http://***@proxy.example:3128"),
        ("http://user:a@s3cr3t-99@proxy.example:3128", "http://***@proxy.example:3128"),
        ("", ""),
    ],
)
def test_right_proxies(write: Write, proxy: str, shown: str) -> None:
    """Its address is shown, its credentials are not; as a secret it may come from the environment, too."""
    write(MINIMAL)
    config = Config.load(environ={"CARTSYNC_ACCOUNTS__ACME__PROXY": proxy})
    account = config.merchant_accounts()["acme"]
    assert account.proxy == proxy
    assert config.redacted()["accounts"]["acme"]["proxy"] == shown
    assert SECRET not in str(config.redacted()) + repr(config) + str(config) + repr(account)


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:8090", "http://localhost/x", "http://[::1]:1", "https://x:8443/a/"]
)
def test_right_addresses(base_url: str) -> None:
    """Without TLS only this machine may be asked."""
    assert account_from("acme", {"base_url": base_url}, scenario=True).base_url == base_url


def test_clear_text_where_it_is_allowed() -> None:
    """A sandbox in the same private network may be asked without TLS, by who says so."""
    members = {"base_url": "http://sandbox:8090", "allow_http": True}
    assert account_from("acme", members, scenario=True).base_url == "http://sandbox:8090"
    assert "allow_http = true" in account_problem(base_url="http://sandbox:8090")
    assert "allow_http = true" in account_problem(base_url="http://sandbox:8090", allow_http=False)


@pytest.mark.parametrize(
    "members",
    [
        *({"password": 99}, {"concurrency": 0}, {"rate_per_s": -1}, {"rate_per_s": float("nan")}),
        *({"platform": {"name": 1}}, {"store_ref": ""}, {"provider": "qlro"}, {"unknown": SECRET}),
    ],
)
def test_wrong_members(members: dict[str, object]) -> None:
    """Bounds and types hold for every member, and the member is named."""
    assert next(iter(members)) in account_problem(**members)


def test_wrong_account_name() -> None:
    """The name is checked here, too."""
    with pytest.raises(ConfigError, match="must not contain a slash"):
        account_from("a/b", {}, scenario=True)


def test_worker_settings() -> None:
    """Settings by their configuration names; the rest is as it is by default."""
    settings = worker_settings_from({"lease": "30s", "not_found_delays": ["1s"]})
    assert settings.rules() == DeliveryPolicy(lease_s=30.0, not_found_delays_s=(1.0,))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"lease_s": "30s"}, "did you mean lease?"),
        ({"lease": 30}, "[worker] lease = 30: a duration needs a unit"),
        ({"lease": "5s"}, "attempt_deadline"),
        ({"not_found_delays": ["1s", 2]}, "[worker.not_found_delays] 1 = 2: a duration needs a unit"),
        ({"topic_epoch": 512}, "less than or equal to 511"),
    ],
)
def test_wrong_worker_settings(members: dict[str, object], expected: str) -> None:
    """Wrong ones are refused as those of the file are."""
    with pytest.raises(ConfigError) as caught:
        worker_settings_from(members)
    assert expected in str(caught.value)


def test_http_section_alone(write: Write) -> None:
    """Who only wants to ask a worker needs no more than its port."""
    write("[http]\nport = 9001\n[accounts.acme]\nprovider = 3\n")
    assert http_section(environ={}).port == 9001
    assert http_section(environ={"CARTSYNC_HTTP__PORT": "9002"}).port == 9002
    with pytest.raises(ConfigError, match=r"CARTSYNC_HTTP__PORT = 'x'"):
        http_section(environ={"CARTSYNC_HTTP__PORT": "x"})


def test_who_may_ask(write: Write) -> None:
    """Names and a token for the private port; the token may be in a file, and has to be a strong one."""
    write("t" * 32 + "\n", "secret")
    write('[http]\ntoken_file = "secret"\nallowed_hosts = ["Worker.Shop.internal"]\n')
    http = http_section(environ={})
    assert (http.token.get_secret_value(), http.allowed_hosts) == ("t" * 32, ("worker.shop.internal",))
    assert http_section(environ={"CARTSYNC_HTTP__ALLOWED_HOSTS": "a, b"}).allowed_hosts == ("a", "b")
    write("[http]\n")
    for wrong in ("short", "with a space in it", "x" * 15 + "é"):
        with pytest.raises(ConfigError, match="CARTSYNC_HTTP__TOKEN: must be 16 or more"):
            http_section(environ={"CARTSYNC_HTTP__TOKEN": wrong})
    with pytest.raises(ConfigError, match="without a port"):
        http_section(environ={"CARTSYNC_HTTP__ALLOWED_HOSTS": "a:1"})


def test_token_url_of_kafka(write: Write) -> None:
    """A client secret goes nowhere in clear."""
    write(MINIMAL)
    (line,) = problems(CARTSYNC_KAFKA__OAUTH_TOKEN_URL="http://login.example/token")
    assert "must start with https://" in line


def test_accounts_alone(write: Write) -> None:
    """Who needs no Kafka needs no more than the accounts; there may be none."""
    assert configured_accounts(environ={}) == {}
    write(MINIMAL.replace("bootstrap_servers", "servers"))
    assert password_of(configured_accounts(environ={})) == SECRET
    write(MINIMAL.replace("accounts.acme", 'accounts."a/b"'))
    with pytest.raises(ConfigError, match="must not contain a slash"):
        configured_accounts(environ={})


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"report_at": "3:30"}, 'report_at: must be a time of day such as "03:30", or a list of them'),
        ({"report_at": "24:00"}, "report_at: must be a time of day"),
        ({"report_at": ["03:30", 7]}, "report_at: must be a time of day"),
        ({"report_at": []}, "report_at: must be a time of day"),
        ({"report_at": 330}, "report_at: must be a time of day"),
        ({"timezone": "Europe/Madird"}, "timezone: must be the IANA name of a time zone"),
        ({"timezone": "../etc/passwd"}, "timezone: must be the IANA name of a time zone"),
        ({"timezone": ""}, "timezone: must be the IANA name of a time zone"),
        ({"report_path": "delivery_reports"}, "report_path: must be a URL path"),
        ({"report_path": "/reports?x=1"}, "report_path: must be a URL path"),
        ({"report_path": "/a b"}, "report_path: must be a URL path"),
        ({"report_orders_max": 0}, "report_orders_max: should be greater than or equal to 1"),
        ({"report_orders_max": 5001}, "report_orders_max: should be less than or equal to 5000"),
        ({"disbursements_every": "500ms"}, 'disbursements_every: must be from "1s" to "744h"'),
        ({"disbursements_every": "6"}, "disbursements_every: a duration needs a unit"),
        ({"delivery": "reports"}, "delivery: should be 'update', 'report' or 'report_then_update'"),
    ],
)
def test_settings_of_reports(members: dict[str, Any], expected: str) -> None:
    """Each mistake is named with what to write."""
    name, _, advice = expected.partition(": ")
    said = account_problem(**members)
    assert f"[accounts.acme] {name} = {next(iter(members.values()))!r}: {advice}" in said


def test_times_of_day() -> None:
    """One, or a list, or with commas as environment variables have them; each once, in their order."""
    for text, expected in (
        ("03:30", (210,)),
        (["15:00", "03:30", "15:00"], (210, 900)),
        ("15:00, 03:30", (210, 900)),
    ):
        account = account_from("acme", {"provider": "sequra", "report_at": text}, scenario=True)
        assert isinstance(account, SequraAccount)
        assert account.report_at == expected


def test_disbursements_need_what_signs_and_places_them(write: Write) -> None:
    """What a job writes is believed by its MAC, and has to lie where the order's events do."""
    write(f"{MINIMAL}disbursements = true\n")
    first, second = problems()
    assert first.startswith("[accounts.acme] disbursements = true needs [kafka] partitioner")
    assert second.startswith("[accounts.acme] disbursements = true needs [callbacks] record_secrets")


def test_zone_that_the_system_does_not_know(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is not looked at before, and there may be no tzdata."""
    write(f'{MINIMAL}delivery = "report"\n')
    monkeypatch.setattr("worker.config.ZoneInfo", _no_zone)
    (problem,) = problems()
    assert problem.startswith("[accounts.acme] timezone: unknown time zone Europe/Madrid")


def _no_zone(name: str) -> None:
    raise ZoneInfoNotFoundError(name)
