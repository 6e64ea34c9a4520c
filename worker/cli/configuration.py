"""`cartsync config …` and `cartsync callback …`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import AsJson, ConfigPath, group, load_config
from worker.errors import UsageError

config_app = group("The configuration.")
callback_app = group("The URLs that providers call back.")


@config_app.command("check")
def config_check(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Check the configuration, and print everything that is wrong with it.

    Exit 0, or 64 with one line for each mistake.
    """
    settings = load_config(config)
    if any(account.callback_secrets for account in settings.accounts.values()):
        from worker.config.receiving import receiver_config

        receiver_config(config)  # a deployment with callbacks has a receiver that reads these settings
    accounts = ", ".join(settings.accounts)
    print(json.dumps({"ok": True, "problems": []}) if as_json else f"the configuration is valid; accounts: {accounts}")


@config_app.command("print")
def config_print(
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Print the effective configuration, and where each setting comes from.

    Secrets are shown as ***.
    """
    settings = load_config(config)
    from worker.tools.show_config import config_text

    if as_json:
        print(json.dumps(settings.redacted(), ensure_ascii=False, indent=2))
    else:
        print(config_text(settings), end="")


@config_app.command("init")
def config_init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")] = Path("cartsync.toml"),
    as_json: AsJson = False,
) -> None:
    """Write an example with every setting and its default.

    Never overwrites an existing file.
    """
    from importlib.resources import files

    example = files("worker.config").joinpath("cartsync.example.toml").read_bytes()
    try:
        with path.open("xb") as file:
            file.write(example)
    except FileExistsError:
        raise UsageError(f"{path}: already exists and was not changed; name another file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    named = "" if path == Path("cartsync.toml") else f" --config {path}"
    print(json.dumps({"written": str(path)}) if as_json else f"written: {path}; then `cartsync config check{named}`")


@callback_app.command("url")
def callback_url(
    account: Annotated[str, typer.Argument(help="The NAME in [accounts.NAME].")],
    reference: Annotated[
        str, typer.Argument(help="The order's reference; leave out for a provider that has one URL per seller.")
    ] = "",
    purpose: Annotated[str | None, typer.Option(metavar="P", help="Only this purpose. Default: all.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Print the callback URLs to give to a provider for an order.

    Each contains a token for its account, purpose and order: give it to the provider only, and keep it out of logs.

    \b
    cartsync callback url hats A14/12345
    cartsync callback url hats A14/12345 --purpose order-status
    cartsync callback url escrow
    """
    from worker.config.receiving import callers
    from worker.tools.callback_addresses import print_addresses

    raise typer.Exit(print_addresses(*callers(config), account, reference, purpose, as_json=as_json))


@callback_app.command("verify")
def callback_verify(
    address: Annotated[str, typer.Argument(help="A URL, or its path.")],
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Check whether a callback URL would be accepted, and by which secret.

    Exit 0, or 1 if it would not.

    \b
    cartsync callback verify https://callbacks.example.com/callbacks/hats/order-status/ji73…/A14%2F12345
    """
    from worker.config.receiving import callers
    from worker.tools.callback_addresses import verify_address

    raise typer.Exit(verify_address(callers(config)[1], address, as_json=as_json))
