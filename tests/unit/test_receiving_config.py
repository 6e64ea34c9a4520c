"""The configuration of the receiver: what it needs, what it leaves alone, and what is said when it is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.config.receiving import callers, receiver_config
from worker.errors import ConfigError
from worker.model.callbacks import Reply

SECRET = "0123456789abcdef0123456789abcdef"
KAFKA = '[kafka]\nbootstrap_servers = "127.0.0.1:9092"\npartitioner = "murmur2"\n'
SIGNING = f'[callbacks]\nrecord_secrets = ["{SECRET}"]\n'
HATS = f'[accounts.hats]\nprovider = "qliro"\ncallback_secrets = ["{SECRET}"]\n'
LOOKUPS = f'[accounts.hats.lookups]\nurl = "https://shop.example/x"\ntoken = "{SECRET}"\n'
DEFAULTS = (
    '[accounts.hats.lookups.default]\nvalidation = "accept"\nshipping_methods = "declined"\n'
    'shipping_addresses = "empty"\n'
)
GOOD = KAFKA + SIGNING + HATS

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration."""

    def to_file(text: str) -> Path:
        path = tmp_path / "receive.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def problems(path: Path, **environ: str) -> list[str]:
    """What is wrong with it; none of it shows a secret."""
    with pytest.raises(ConfigError) as raised:
        receiver_config(path, environ)
    assert SECRET not in str(raised.value)
    return str(raised.value).splitlines()


def test_what_it_needs(write: Write) -> None:
    """Kafka with a partitioner, a secret to sign with, an account with one to be called by."""
    config = receiver_config(write(GOOD), {})
    assert config.callers["hats"].callback_secrets == (SECRET,)
    assert config.callers["hats"].lookups is None
    assert (config.callbacks.host, config.callbacks.port, config.callbacks.deadline_s) == ("127.0.0.1", 8081, 4.0)


def test_what_it_leaves_alone(write: Write, tmp_path: Path) -> None:
    """Of accounts, members and files that are the workers' are not even read; other sections may be there."""
    (tmp_path / "hats").write_text(SECRET + "\n")
    more = 'api_secret_file = "/nowhere/at/all"\nbase_url = "nonsense"\nwhatever = 3\n[worker]\nlease = "20s"\n[later]\nx = 1\n'
    text = GOOD.replace(f'callback_secrets = ["{SECRET}"]', 'callback_secrets_file = "hats"')
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "CARTSYNC_ACCOUNTS__HATS__API_KEY").mkdir()  # not to be read: it is no file
    config = receiver_config(write(text + more), {"CARTSYNC_SECRETS_DIR": str(folder)})
    assert config.callers["hats"].callback_secrets == (SECRET,)
    assert callers(write(text + more), {})[1]["hats"].callback_secrets == (SECRET,)


def test_environment(write: Write) -> None:
    """Variables go before the file, also for what has no file at all."""
    environ = {"CARTSYNC_CALLBACKS__PORT": "9999", "CARTSYNC_ACCOUNTS__HATS__CALLBACK_SECRETS": SECRET[::-1]}
    config = receiver_config(write(GOOD), environ)
    assert (config.callbacks.port, config.callers["hats"].callback_secrets) == (9999, (SECRET[::-1],))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace('partitioner = "murmur2"\n', ""), "[kafka] partitioner: must be set"),
        (KAFKA + HATS, "[callbacks] record_secrets is missing"),
        (KAFKA + SIGNING, "[accounts]: no account has callback_secrets"),
        (KAFKA + SIGNING + HATS.partition("callback")[0], "[accounts]: no account has callback_secrets"),
        (SIGNING + HATS, "bootstrap_servers is missing"),
        (GOOD.replace("qliro", "klarna"), "unknown provider"),
        (GOOD.replace('provider = "qliro"\n', ""), "provider is missing"),
        (GOOD.replace(SECRET + '"]\n[', 'short"]\n['), "must each have 32 or more characters"),
        (GOOD.replace("hats", '"h/ats"'), "an account's name must not contain a slash"),
        (GOOD.replace("qliro", "atarapay"), "public_key is missing: it is needed to verify AtaraPay's notifications"),
        (
            GOOD.replace("[accounts", "question_slots = 200\n[accounts"),
            "question_slots: must be less than connections",
        ),
        (GOOD.replace("[accounts", 'deadline = "5s"\n[accounts'), "deadline = '5s': "),
        (GOOD.replace("[accounts", 'forwarded_from = ["10.0.0.1/8"]\n[accounts'), "must be addresses or networks"),
        (GOOD.replace("[accounts", 'public_url = "http://x.example"\n[accounts'), "must start with https://"),
        (GOOD.replace("[accounts", "prot = 1\n[accounts"), "did you mean port?"),
        (GOOD + LOOKUPS, "default is missing"),
        (GOOD + LOOKUPS + DEFAULTS.replace('validation = "accept"\n', ""), "default.validation is missing"),
        (GOOD + LOOKUPS + DEFAULTS.replace("accept", "perhaps"), "should be one of accept, OutOfStock"),
        (GOOD + LOOKUPS + DEFAULTS.replace("declined", "/nowhere.json"), "cannot be read: No such file"),
        (
            GOOD + LOOKUPS + DEFAULTS + 'cancel = "unsupported"\n',
            "unknown question 'cancel'; qliro asks validation",
        ),
        (GOOD + LOOKUPS + 'timeout = "4s"\n' + DEFAULTS, "timeout (4s) must be shorter than [callbacks] deadline (4s)"),
        (GOOD + LOOKUPS.replace("https", "http") + DEFAULTS, "allow_http = true permits it"),
        (GOOD + LOOKUPS.replace(f'token = "{SECRET}"\n', "") + DEFAULTS, "token is missing"),
        (GOOD + LOOKUPS.replace("url", "urk") + DEFAULTS, "did you mean url?"),
    ],
)
def test_mistakes(write: Write, text: str, expected: str) -> None:
    """Each is said, with where it stands and what to write."""
    found = problems(write(text))
    assert any(expected in problem for problem in found), found


def test_account_of_a_provider_that_asks_nothing(write: Write) -> None:
    """Lookups of AtaraPay's would never be used."""
    text = (
        GOOD.replace("qliro", "atarapay") + f'public_key = "{SECRET}"\nprivate_key = "{SECRET}"\n' + LOOKUPS + DEFAULTS
    )
    assert problems(write(text)) == ["[accounts.hats.lookups]: atarapay asks no questions that a shop has to answer"]


def test_lookups(write: Write, tmp_path: Path) -> None:
    """The default of shipping methods may be a file, which is read and checked at the start."""
    methods = tmp_path / "methods.json"
    methods.write_text('{"methods":[{"reference":"r","name":"n","price_minor":100,"price_ex_vat_minor":80}]}')
    config = receiver_config(write(GOOD + LOOKUPS + DEFAULTS.replace("declined", str(methods))), {})
    lookups = config.callers["hats"].lookups
    assert lookups is not None
    assert (lookups.url, lookups.token, lookups.timeout_s) == ("https://shop.example/x", SECRET, 3.5)
    assert lookups.defaults["validation"].reply == Reply(200)
    offered = lookups.defaults["shipping_methods"].reply
    assert offered is not None
    assert b'"PriceIncVat":1.00' in offered.body


def test_addresses_need_no_kafka(write: Write) -> None:
    """A checkout's machine may know the accounts alone."""
    public_url, known = callers(write('[callbacks]\npublic_url = "https://cb.example/"\n' + HATS), {})
    assert (public_url, list(known)) == ("https://cb.example", ["hats"])
