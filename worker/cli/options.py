"""What commands share: their options, and how a configuration is loaded for them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import http_url
from worker.errors import ConfigError

if TYPE_CHECKING:
    from worker.config import Config, KafkaSection
    from worker.config.console import ConsoleConfig
    from worker.tools.control import Port

HELP = {"help_option_names": ["-h", "--help"]}


def group(text: str, *, is_command: bool = False) -> typer.Typer:
    """A group of commands. `is_command`: it does something by itself, too."""
    return typer.Typer(
        no_args_is_help=not is_command,
        invoke_without_command=is_command,
        help=text,
        rich_markup_mode=None,
        context_settings=HELP,
    )


ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Default: $CARTSYNC_CONFIG, else ./cartsync.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="URL of the worker's private port. Default: from [http] in the configuration."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the worker's [http] token. Default: the token in the configuration."),
]
Why = Annotated[str, typer.Option(metavar="TEXT", help="The reason: kept with the event, at most 500 characters.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who does it. Default: USER@HOST.")]
Ref = Annotated[str, typer.Argument(help="account/reference, or the reference alone if only one account has it.")]


def log_to_stderr(level: str = "warning") -> None:
    """Keeps stdout free for the tool's own output."""
    from worker import logs

    logs.configure(level="warning" if "--debug" in sys.argv[1:] else level, stream=sys.stderr)


def only_the_last_line() -> None:
    """Silences the libraries: an error is printed once, at the end. --debug still shows their warnings."""
    log_to_stderr("critical")


def check_kafka(section: "KafkaSection") -> None:
    """Raises `ConfigError` for settings that Kafka's client would not take."""
    from worker.kafka.settings import KafkaSettings

    try:
        KafkaSettings(**section.members()).check()
    except ConfigError as error:
        raise ConfigError(f"[kafka] {error}") from None


def load_config(path: Path | None) -> "Config":
    """The whole configuration. Raises `ConfigError` with everything that is wrong with it."""
    from worker.config import Config
    from worker.publisher.routes import routes_of

    def check_client(config: Config) -> None:
        check_kafka(config.kafka)

    def check_routes(config: Config) -> None:
        routes_of(config.merchant_accounts())

    return Config.load(path, checks=[check_client, check_routes])


def load_watched(path: Path | None) -> "ConsoleConfig":
    """What is needed to read our topics: no credentials of a provider. Raises `ConfigError`."""
    from worker.config.console import console_config

    settings = console_config(path, serves=False)
    check_kafka(settings.kafka)
    return settings


def worker_port(url: str | None, path: Path | None, token_file: Path | None) -> "Port":
    """The worker's URL and token. A port that is bound to all interfaces is reached on loopback."""
    from worker.config import http_section, read_secret
    from worker.tools.control import Port

    token = None if token_file is None else read_secret(token_file)
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"{token_file}: not a token (expected ASCII without spaces)")
    try:
        http = http_section(path)
    except ConfigError:
        if url is None:
            raise
        return Port(url, token or "")  # with --url no valid configuration is needed on this machine
    token = http.token.get_secret_value() if token is None else token
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)  # noqa: S104 - connected to, not bound
    return Port(http_url(host, http.port) if url is None else url, token)
