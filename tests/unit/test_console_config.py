"""The configuration of the console: what it needs, what it leaves alone, and what is said when it is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worker.config import Config
from worker.config.console import console_config, users_file
from worker.config.receiving import callers, receiver_config
from worker.errors import ConfigError

KAFKA = '[kafka]\nbootstrap_servers = "127.0.0.1:9092"\n'
ACCOUNT = (
    '[accounts.acme]\nprovider = "sequra"\nbase_url = "https://x.example"\nmerchant_id = "m"\nusername = "u"\n'
    'password_file = "/not/there"\n'
)

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration."""

    def to_file(text: str) -> Path:
        path = tmp_path / "console.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def problems(path: Path, host: str | None = None, **environ: str) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as raised:
        console_config(path, environ, host)
    return str(raised.value).splitlines()


def test_no_credentials_of_a_provider(write: Write) -> None:
    """Of an account it takes the provider's name: secret files may be out of its reach."""
    found = console_config(write(KAFKA + ACCOUNT + '[callbacks]\nrecord_secrets_file = "/not/there"\n'), {})
    assert found.providers == {"acme": "sequra"}
    assert (found.console.host, found.console.port, found.console.auth) == ("127.0.0.1", 8082, "none")


def test_no_accounts(write: Write) -> None:
    """None need be configured."""
    assert console_config(write(KAFKA), {}).providers == {}


def test_everything(write: Write) -> None:
    """From the file and from the environment; what the worker's own configuration reads, too."""
    text = KAFKA + ACCOUNT.replace("_file", "").replace("/not/there", "secret")
    text += '[console]\nauth = "proxy"\nhost = "0.0.0.0"\nproxy_from = "10.0.0.0/8"\nproxy_operators = ["ana@shop"]\n'
    path = write(text)
    found = console_config(path, {"CARTSYNC_CONSOLE__WORKERS": "http://a:8080,http://b:8080"}).console
    assert found.workers == ("http://a:8080", "http://b:8080")
    assert (found.proxy_from, found.proxy_operators) == (("10.0.0.0/8",), ("ana@shop",))
    assert Config.load(path, environ={}).console.auth == "proxy"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('host = "0.0.0.0"\n', 'auth = "none" is for loopback only, and host is 0.0.0.0'),
        ('host = "console.shop"\n', "is for loopback only"),
        ('auth = "basic"\n', "users_file is missing"),
        ('auth = "proxy"\n', "proxy_from is missing"),
        ('auth = "proxy"\nproxy_from = ["everywhere"]\n', "must be addresses or networks"),
        ('forwarded_from = ["everywhere"]\n', "must be addresses or networks"),
        ('workers = ["http://ana:word@10.0.0.7:8080"]\n', "must be private ports of workers"),
        ('auth = "open"\n', "auth"),
        ('proxy_header = "a b"\n', "proxy_header"),
        ('workers = ["10.0.0.7:8080"]\n', 'must be private ports of workers, such as "http://10.0.0.7:8080"'),
        ("colour = 1\n", "colour"),
        ('trace_url = "javascript:{trace_id}"\n', "must be an address with {trace_id} once"),
        ('trace_url = "https://t.example/{trace_id}/{trace_id}"\n', "must be an address with {trace_id} once"),
        ('trace_url = "https://t.example/{trace}"\n', "must be an address with {trace_id} once"),
        ('trace_url = "https://t.example/"\n', "must have {trace_id}"),
    ],
)
def test_mistakes(write: Write, section: str, expected: str) -> None:
    """It does not start, and says what to write instead."""
    (problem,) = problems(write(f"{KAFKA}[console]\n{section}"))
    assert "[console]" in problem
    assert expected in problem


def test_trace_url(write: Write) -> None:
    """A query may have the id as well as a path."""
    for url in ("https://t.example/trace/{trace_id}", "http://localhost:3000/explore?q={trace_id}&org=1#x"):
        assert console_config(write(f'{KAFKA}[console]\ntrace_url = "{url}"\n'), {}).console.trace_url == url
    assert console_config(write(KAFKA), {}).console.trace_url == ""


def test_host_of_the_command_line(write: Write) -> None:
    """Is held against the same rule."""
    assert "loopback only" in problems(write(KAFKA), "0.0.0.0")[0]
    assert console_config(write(KAFKA), {}, "::1").console.host == "::1"


def test_port_of_the_command_line(write: Write) -> None:
    """Goes before the file's, also where it is any free one."""
    text = KAFKA + "[console]\nport = 9000\n"
    assert console_config(write(text), {}).console.port == 9000
    assert console_config(write(text), {}, port=0).console.port == 0


def test_commands_that_open_no_port(write: Write) -> None:
    """They need no rule of those who may ask, and are sent to no console when Kafka is missing."""
    assert console_config(write(KAFKA + '[console]\nhost = "0.0.0.0"\n'), {}, serves=False).providers == {}
    with pytest.raises(ConfigError) as raised:
        console_config(write(""), {}, serves=False)
    assert "demo" not in str(raised.value)


def test_no_kafka(write: Write) -> None:
    """What is missing is said."""
    (problem,) = problems(write("[console]\nport = 1\n"))
    assert problem.count("bootstrap_servers") == 1
    assert "[kafka] bootstrap_servers is missing" in problem
    assert "or try `cartsync demo --console`" in problem
    assert "colour" in problems(write("[console]\ncolour = 1\n"))[0]


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without a configuration each command says so: what is missing is the file, not a setting."""
    monkeypatch.chdir(tmp_path)
    loads: list[Callable[..., object]] = [console_config, receiver_config, callers, Config.load]
    for load in loads:
        with pytest.raises(ConfigError) as raised:
            load(environ={})
        assert "there is no ./cartsync.toml" in str(raised.value)


def test_users_file(write: Write) -> None:
    """Whoever edits it needs no Kafka."""
    assert users_file(write('[console]\nusers_file = "u"\n'), {}) == "u"
    assert users_file(write(""), {}) == ""
