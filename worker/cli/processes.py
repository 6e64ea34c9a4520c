"""Commands that run until they are told to stop: workers, receivers, the sandbox; and the demo."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import ConfigPath, check_kafka, load_config
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.config import Config
    from worker.core.targets import TargetChoice


def run(
    config: ConfigPath = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Bind the private port to this host; overrides [http] host.")
    ] = None,
    accept_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT=send|keep", help="Accept that the account's URL or merchant has changed; repeatable."
        ),
    ] = None,
    adopt_state: Annotated[
        bool,
        typer.Option("--adopt-state", help="Take over the state of another deployment, which has stopped."),
    ] = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C.

    The first signal drains, which takes a few seconds (24 at most). A second one exits immediately, and the next owner
    must hold the orders it had in flight. SIGHUP rereads secrets and accounts. If an account's base_url, merchant_id or
    provider differs from where its orders were sent, the worker refuses to start until you decide: send (all of them
    are sent again) or keep (they count as acknowledged).

    A state topic belongs to one deployment (group_id, transactional_id_prefix, event topic, cluster). If you changed
    one of these on purpose, stop all workers and start the first one with --adopt-state.

    \b
    cartsync run --config /etc/cartsync.toml
    cartsync run --host 0.0.0.0
    cartsync run --accept-target acme=send
    """
    settings = load_config(config)
    accepted = _accepted_targets(accept_target or [], settings)
    if adopt_state:
        worker = settings.worker.model_copy(update={"adopt_state": True})
        settings = settings.model_copy(update={"worker": worker})
    if settings.console.with_worker:
        from worker.config.console import console_config

        console_config(config)  # its mistakes now, not in a process that comes later
    from worker.app.run import run_worker

    raise typer.Exit(run_worker(settings, lambda: load_config(config), host, accepted, config))


def receive(
    config: ConfigPath = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Bind the private port to this host; overrides [http] host.")
    ] = None,
) -> None:
    """Receive callbacks from providers until SIGTERM or Ctrl-C.

    Opens the public port ([callbacks] host, port), and a private one for probes and metrics. Each callback is written
    to the event topic before it is acknowledged to the provider. Any number of receivers may run; all that each needs
    is permission to write to the event topic. Terminate TLS in front of it. SIGHUP rereads accounts and secrets.

    \b
    cartsync receive --config /etc/cartsync.toml
    cartsync callback url acme A14/12345
    """
    from worker.config.receiving import ReceiverConfig, receiver_config

    def load() -> ReceiverConfig:
        settings = receiver_config(config)
        check_kafka(settings.kafka)
        return settings

    settings = load()
    from worker.app.receive import run_receiver

    raise typer.Exit(run_receiver(settings, load, host))


def demo(
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="Orders of all shops together.")] = 300,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long the shops place orders.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Random seed: another seed, another history.")] = 1,
    kafka: Annotated[bool, typer.Option("--kafka", help="Use a real Kafka on this machine (needs Java).")] = False,
    console: Annotated[bool, typer.Option("--console", help="Also open the console, until Ctrl-C.")] = False,
    console_port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8082,
) -> None:
    """See it work: three shops, three providers, one worker.

    The providers fail, and call back late, twice, and in the wrong order.

    Everything runs on this machine and needs nothing else. Exit 0 if all orders agree in the end, 1 if not. Afterwards
    `cartsync order show` shows single orders.

    \b
    cartsync demo
    cartsync demo --orders 1000 --seconds 30 --seed 7
    """
    from worker.tools.demo import run_demo

    port = console_port if console else None
    raise typer.Exit(run_demo(orders=orders, seconds=seconds, seed=seed, kafka=kafka, console_port=port))


def sandbox(
    provider: Annotated[str, typer.Option(metavar="sequra|qliro|atarapay", help="The provider to fake.")] = "sequra",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8090,
    account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CREDENTIALS",
            help="sequra MERCHANT:USER:PASSWORD, repeatable (acme:user:secret); qliro KEY:SECRET "
            "(HATS:secret); atarapay PUBLIC_KEY:PRIVATE_KEY (public:private).",
        ),
    ] = None,
    faults: Annotated[str, typer.Option(help="Faults and their rates: 500=0.05,reset_applied=0.02")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the fault generator.")] = 0,
    callback_url: Annotated[
        str, typer.Option(metavar="URL", help="Where AtaraPay's notifications go (`cartsync callback url` prints it).")
    ] = "",
) -> None:
    """Run a local fake provider to try things against.

    Responds and calls back as the provider does, until Ctrl-C. Open it in a browser to see its orders. Place orders
    with POST /checkout (seQura creates one at its first update), trigger events with POST /acts; the page explains.

    \b
    cartsync sandbox
    cartsync sandbox --port 9000 --faults 5xx=0.1,timeout_lost=0.01:10s
    cartsync sandbox --provider qliro --faults push_late=0.2:3s,push_doubled=0.1,result_error=0.05
    """
    from worker.tools.sandbox_server import run_sandbox

    raise typer.Exit(
        run_sandbox(
            provider=provider,
            host=host,
            port=port,
            accounts=account or (),
            faults=faults,
            seed=seed,
            callback_url=callback_url,
        )
    )


def _accepted_targets(given: list[str], settings: "Config") -> "dict[str, TargetChoice]":
    accepted: dict[str, TargetChoice] = {}
    for each in given:
        name, _, choice = each.rpartition("=")
        if name not in settings.accounts or choice not in ("send", "keep"):
            known = ", ".join(settings.accounts)
            raise UsageError(f"--accept-target {each}: expected ACCOUNT=send or ACCOUNT=keep; accounts: {known}")
        accepted[name] = "send" if choice == "send" else "keep"
    return accepted
