"""The rules of the layout, read from the syntax of every module: what stands where, who imports whom.

A rule is a function from a module and the tree that it is in to a list of violations, `path:line: what`.
Each rule is a test over the modules of this project. The tables at the end show each rule at least one tree
that breaks it, and all of them one tree that breaks none, so that a rule which sees nothing fails.
"""

import ast
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "worker")

TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "pyproject.toml",
    "requirements.lock",
    "schemas",
    "tests",
    "worker",
}
# What tools leave in a working copy; .gitignore names the same. Names with a leading dot are free.
TOP_LEVEL_MADE = ("*.egg-info", "__pycache__", "build", "cartsync.toml", "cartsync-console.sqlite*", "dist", "htmlcov")

# From the top down. An area imports those of lower layers; two areas of one layer do not import each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"cli"}),
    frozenset({"tools"}),
    frozenset({"app"}),
    frozenset({"backend"}),
    frozenset({"orders", "jobs", "kafka", "publisher", "store", "web", "sim", "sandbox"}),
    frozenset({"ownership"}),
    frozenset({"tracing"}),
    frozenset({"ports", "metrics", "logs", "deadlines", "own_process"}),
    frozenset({"providers"}),
    frozenset({"core"}),
    frozenset({"model"}),
    frozenset({"schemas"}),
)
PURE = frozenset({"core", "providers", "model"})


def _may_import() -> dict[str, frozenset[str]]:
    """Return for each area the areas that it may import, itself included."""
    allowed: dict[str, frozenset[str]] = {}
    below: frozenset[str] = frozenset()
    for layer in reversed(LAYERS):
        for area in layer:
            allowed[area] = below | {area}
        below |= layer
    # Beside the layers: `errors` is for all of `worker`, `config` for the three that put a worker together,
    # and the bare package, which has the version, for all but the pure areas.
    allowed["errors"] = frozenset({"errors", "schemas"})
    allowed["config"] = frozenset({"config", "core", "providers", "model", "errors", "schemas", "worker"})
    for area in set(allowed) - {"schemas", "errors", "config"}:
        allowed[area] |= {"errors"} if area in PURE else {"errors", "worker"}
    for area in ("cli", "tools", "app"):
        allowed[area] |= {"config"}
    allowed["worker"] = frozenset()
    return allowed


MAY_IMPORT = _may_import()

# Whatever waits, measures time, throws dice, or reaches the world.
IMPURE = (
    *("asyncio", "concurrent", "multiprocessing", "sched", "selectors", "signal", "subprocess", "threading"),
    *("time", "datetime.date.today"),
    *(f"datetime.datetime.{call}" for call in ("now", "today", "utcnow")),
    *("random", "secrets", "uuid.getnode", "uuid.uuid1", "uuid.uuid4"),
    *("logging", "structlog", "prometheus_client", "rich", "typer", "warnings"),
    *("os", "glob", "importlib", "pathlib", "pydantic_settings", "shutil", "sys", "tempfile"),
    *("aiohttp", "aiokafka", "aiolimiter", "http.client", "socket", "ssl", "urllib.request", "uvloop"),
)
IMPURE_BUILTINS = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}
ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv")
STATE_MODULES = ("state", "scan", "reading", "following")
OUR_HTTP_CLIENT = ("aiohappyeyeballs", "httptools")
OTHER_HTTP_CLIENTS = ("http.client", "httpx", "requests", "urllib.request", "urllib3")
# What a server may take of aiohttp beside `web`: the bare name, and types. None of it opens a connection.
AIOHTTP_BOTH = {"", "abc", "http_exceptions", "typedefs"}


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, where it is, and what its syntax says."""

    name: str
    path: str
    source: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.source, self.path)

    @property
    def is_package(self) -> bool:
        """Whether this is the `__init__.py` of a package."""
        return self.path.endswith("__init__.py")

    @property
    def area(self) -> str:
        """The name by which the layout speaks of it: `core` for worker/core/order.py, `schemas`, `cli`."""
        return area_of(self.name)

    @cached_property
    def imports(self) -> tuple[tuple[int, str, str | None], ...]:
        """Line, module, and for `from module import name` the name, of every import wherever it stands."""
        found: list[tuple[int, str, str | None]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node.lineno, self._absolute(node), alias.name) for alias in node.names]
        return tuple(found)

    @cached_property
    def uses(self) -> tuple[tuple[int, str], ...]:
        """Line and dotted name of everything imported, and of every attribute reached from there."""
        bound: dict[str, str] = {}
        found: list[tuple[int, str]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    bound[alias.asname or top] = alias.name if alias.asname else top
                    found.append((node.lineno, alias.name))
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    full = f"{self._absolute(node)}.{alias.name}"
                    bound[alias.asname or alias.name] = full
                    found.append((node.lineno, full))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and (chain := _chain(node)):
                first, *rest = chain
                if first in bound:
                    found.append((node.lineno, ".".join([bound[first], *rest])))
        return tuple(found)

    def at(self, line: int, what: str) -> str:
        """Return a violation in this module."""
        return f"{self.path}:{line}: {what}"

    def _absolute(self, node: ast.ImportFrom) -> str:
        """Return the module that `from … import` names, with leading dots resolved."""
        if not node.level:
            return node.module or ""
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        base = package[: len(package) - node.level + 1]
        return ".".join([*base, node.module] if node.module else base)


Tree = Mapping[str, Module]
Rule = Callable[[Module, Tree], list[str]]


def _chain(node: ast.expr) -> list[str]:
    """Return the names of `a.b.c`, or nothing when it does not begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := _chain(node.value)):
        return [*before, node.attr]
    return []


def area_of(name: str) -> str:
    """Return the area of a module of ours; `python -m worker` is a command line."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return "cli" if second == "__main__" else second if first == "worker" and second else first


def is_or_in(name: str, outer: str) -> bool:
    """Return whether a dotted name is another one or lies within it."""
    return name == outer or name.startswith(f"{outer}.")


def read_tree(root: Path) -> dict[str, Module]:
    """Return every module of our packages under a folder, by name."""
    modules = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root)
            name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            modules[name] = Module(name, path.as_posix(), file.read_text(encoding="utf-8"))
    return modules


def our_imports(module: Module, tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield line and target of each import of ours; `from package import module` means the module."""
    for line, target, name in module.imports:
        if target.partition(".")[0] in PACKAGES:
            whole = f"{target}.{name}"
            is_module = any(is_or_in(known, whole) for known in tree)
            yield line, whole if is_module else target


# The rules


def in_layout(module: Module, tree: Tree) -> list[str]:
    """Report a module in no area of the layout."""
    return [] if module.area in MAY_IMPORT else [module.at(1, f"worker/{module.area} is not in the layout")]


def import_direction(module: Module, tree: Tree) -> list[str]:
    """Report an import of an area that is not below the module's own."""
    allowed = MAY_IMPORT.get(module.area, frozenset())
    return [
        module.at(line, f"{module.area} imports {target}")
        for line, target in our_imports(module, tree)
        if area_of(target) not in allowed
    ]


SHARED_BY_PROVIDERS = ("responses", "callbacks")


def provider_folders(module: Module, tree: Tree) -> list[str]:
    """Report a provider that imports of `providers` anything but its own folder and `responses`."""
    own, known = _provider(module.name, tree), "worker.providers"
    if own is None:
        return []
    shared = {f"{known}.{name}" for name in SHARED_BY_PROVIDERS}
    return [
        module.at(line, f"{own} imports {target}")
        for line, target in our_imports(module, tree)
        if is_or_in(target, known) and not is_or_in(target, own) and target not in shared
    ]


def _provider(name: str, tree: Tree) -> str | None:
    """Return the provider's folder that a module lies in, or `responses`; None for other modules beside them."""
    parts = name.split(".")
    if parts[:2] != ["worker", "providers"] or len(parts) == 2:
        return None
    folder = ".".join(parts[:3])
    is_folder = any(other.startswith(f"{folder}.") for other in tree) or len(parts) > 3
    return folder if is_folder or parts[2] in SHARED_BY_PROVIDERS else None


def no_cycle(module: Module, tree: Tree) -> list[str]:
    """Report the shortest chain of imports that leads from a module back to it."""
    paths: list[list[str]] = [[module.name]]
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        for _, target in our_imports(tree[path[-1]], tree):
            if target == module.name:
                return [module.at(1, " -> ".join([*path, target]))]
            if target in tree and target not in seen:
                seen.add(target)
                paths.append([*path, target])
    return []


def environment(module: Module, tree: Tree) -> list[str]:
    """Report a look at the environment outside worker/config.py."""
    if module.name == "worker.config":
        return []
    return [module.at(line, name) for line, name in module.uses if any(is_or_in(name, each) for each in ENVIRONMENT)]


def kafka_client(module: Module, tree: Tree) -> list[str]:
    """Report aiokafka outside worker/kafka."""
    if module.area == "kafka":
        return []
    return [module.at(line, name) for line, name in module.uses if is_or_in(name, "aiokafka")]


def state_backend(module: Module, tree: Tree) -> list[str]:
    """Report whoever reaches past worker/backend.py for the modules that keep the state."""
    if module.area in ("kafka", "backend"):
        return []
    return [
        module.at(line, target)
        for line, target in our_imports(module, tree)
        if any(is_or_in(target, f"worker.kafka.{name}") for name in STATE_MODULES)
    ]


def http_client(module: Module, tree: Tree) -> list[str]:
    """Report HTTP requests outside worker/publisher, and servers outside web and the sandbox.

    Tokens for Kafka come over HTTP, too; no update does.
    """
    serves = module.area == "web" or module.name == "worker.sandbox.server"
    asks_for_tokens = module.name == "worker.kafka.oauth"
    found = []
    for line, name in module.uses:
        if is_or_in(name, "aiohttp"):
            part = name.partition(".")[2].partition(".")[0]
            is_web = part == "web" or part.startswith("web_")
            fits = asks_for_tokens or (serves and (is_web or part in AIOHTTP_BOTH))
        elif any(is_or_in(name, each) for each in OUR_HTTP_CLIENT):
            fits = module.area == "publisher" or (module.area == "kafka" and name.startswith("aiohappyeyeballs"))
        else:
            # The programs for people ask the worker's own port and fetch Kafka; they send no update.
            is_client = any(is_or_in(name, each) for each in OTHER_HTTP_CLIENTS)
            fits = not is_client or module.area in {"cli", "tools"}
        if not fits:
            found.append(module.at(line, name))
    return found


def fast_loop(module: Module, tree: Tree) -> list[str]:
    """Report uvloop outside the programs: under anything else the virtual loop must be able to run."""
    if module.area in {"cli", "tools", "app"}:
        return []
    return [module.at(line, name) for line, name in module.uses if is_or_in(name, "uvloop")]


def pure(module: Module, tree: Tree) -> list[str]:
    """Report in the pure areas whatever waits, measures time, throws dice, or reaches the world."""
    if module.area not in PURE:
        return []
    found = [module.at(line, name) for line, name in module.uses if any(is_or_in(name, each) for each in IMPURE)]
    for node in ast.walk(module.tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                found.append(module.at(node.lineno, type(node).__name__))
            case ast.comprehension(is_async=1, target=target):
                found.append(module.at(target.lineno, "async comprehension"))
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                found.append(module.at(node.lineno, f"{name}()"))
    return found


def log_names(module: Module, tree: Tree) -> list[str]:
    """Report log events whose name is put together: whoever reads a line must find what wrote it by its name."""
    found = []
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="debug" | "info" | "warning" | "error" | "critical" | "_note" | "_note_of"),
                args=[ast.JoinedStr() | ast.BinOp() | ast.Call(), *_],
            ):
                found.append(module.at(node.lineno, "a log event without a name that can be searched for"))
    return found


def http_statuses(module: Module, tree: Tree) -> list[str]:
    """Report who looks at a response's status outside the adapters: what follows from it stands in the outcome."""
    if module.area not in {"core", "orders", "jobs"}:
        return []
    return [
        module.at(node.lineno, "an HTTP status")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare) and _compares_status([node.left, *node.comparators])
    ]


def _compares_status(sides: list[ast.expr]) -> bool:
    """Whether a member `status` is compared with a number, or with nothing: ours are words."""
    statuses = [side for side in sides if isinstance(side, ast.Attribute) and side.attr == "status"]
    values = [node.value for side in sides for node in ast.walk(side) if isinstance(node, ast.Constant)]
    return bool(statuses) and any(value is None or isinstance(value, int) for value in values)


RULES: tuple[Rule, ...] = (
    in_layout,
    import_direction,
    provider_folders,
    no_cycle,
    environment,
    kafka_client,
    state_backend,
    http_client,
    fast_loop,
    pure,
    log_names,
    http_statuses,
)


# This project

TREE = read_tree(ROOT)
each_module = pytest.mark.parametrize("module", TREE.values(), ids=lambda module: module.path)


@pytest.mark.parametrize("entry", sorted(path.name for path in ROOT.iterdir()))
def test_top_level_entries(entry: str) -> None:
    """The root of the project holds what the layout names, dotfiles, and what tools make."""
    assert top_level_fits(entry), f"{entry} has no place in the root"


@each_module
def test_in_layout(module: Module) -> None:
    """Each module of the worker is in an area that the layout names."""
    assert in_layout(module, TREE) == []


@each_module
def test_import_direction(module: Module) -> None:
    """Imports go from the command line down to the schemas, and not across."""
    assert import_direction(module, TREE) == []


@each_module
def test_provider_folders(module: Module) -> None:
    """A provider knows its own folder and what all providers share, never another provider."""
    assert provider_folders(module, TREE) == []


@each_module
def test_no_cycle(module: Module) -> None:
    """No module imports itself through others."""
    assert no_cycle(module, TREE) == []


@each_module
def test_environment(module: Module) -> None:
    """Only the configuration reads the environment."""
    assert environment(module, TREE) == []


@each_module
def test_kafka_client(module: Module) -> None:
    """Only worker/kafka knows the Kafka client."""
    assert kafka_client(module, TREE) == []


@each_module
def test_state_backend(module: Module) -> None:
    """Only worker/backend.py chooses what keeps the state."""
    assert state_backend(module, TREE) == []


@each_module
def test_http_client(module: Module) -> None:
    """Only the sender sends, only the web ports and the sandbox serve."""
    assert http_client(module, TREE) == []


@each_module
def test_fast_loop(module: Module) -> None:
    """Only programs choose the event loop."""
    assert fast_loop(module, TREE) == []


@each_module
def test_pure(module: Module) -> None:
    """Core and providers take values and return values."""
    assert pure(module, TREE) == []


@each_module
def test_log_names(module: Module) -> None:
    """Every log event is found in the code by its name."""
    assert log_names(module, TREE) == []


@each_module
def test_http_statuses(module: Module) -> None:
    """Only adapters know what a status means."""
    assert http_statuses(module, TREE) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_data_files_ship(package: str) -> None:
    """Every file in a package that is not Python is named in pyproject.toml, or the image would lack it."""
    assert data_files_left_out(ROOT, package) == []


def top_level_fits(entry: str) -> bool:
    """Return whether a name may stand in the root."""
    return entry in TOP_LEVEL or entry.startswith(".") or any(fnmatch(entry, each) for each in TOP_LEVEL_MADE)


def data_files_left_out(root: Path, package: str) -> list[str]:
    """Return the data files of a package that its wheel would not have."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    shipped = {
        file
        for owner, patterns in settings["package-data"].items()
        for pattern in patterns
        for file in root.joinpath(*owner.split(".")).glob(pattern)
    }
    return [
        file.relative_to(root).as_posix()
        for file in sorted((root / package).rglob("*"))
        if file.is_file() and file.suffix not in {".py", ".pyc"} and file not in shipped
    ]


# The rules themselves: each sees what breaks it, and is silent about what does not

Files = Mapping[str, str]

CORE, PROVIDER, WEB = "worker/core/a.py", "worker/providers/a/wire.py", "worker/web/a.py"

# Rule, part of what it must say, and one file that is enough for it to say so.
BROKEN: tuple[tuple[Rule, str, str, str], ...] = (
    (in_layout, "worker/utils.py:1: worker/utils", "worker/utils.py", ""),
    (import_direction, "core imports worker.app", CORE, "import worker.app"),
    (import_direction, "core imports worker.ports", CORE, "from ..ports import Clock"),
    (import_direction, "core imports worker.providers", CORE, "import worker.providers.base"),
    (import_direction, "core imports worker", CORE, "from worker import __version__"),
    (import_direction, "core imports worker.config", CORE, "def f():\n import worker.config"),
    (import_direction, "providers imports worker.ports", "worker/providers/responses.py", "import worker.ports"),
    (import_direction, "metrics imports worker.logs", "worker/metrics.py", "from worker.logs import log"),
    (import_direction, "web imports worker.sim.a", "worker/web/page.py", "from worker.sim.a import b"),
    (import_direction, "sandbox imports worker.sim.log", "worker/sandbox/pushes.py", "import worker.sim.log"),
    (import_direction, "sandbox imports worker.publisher.a", "worker/sandbox/pushes.py", "import worker.publisher.a"),
    (import_direction, "kafka imports worker.config", "worker/kafka/a.py", "from worker.config import b"),
    (import_direction, "app imports worker.tools.demo", "worker/app.py", "import worker.tools.demo"),
    (import_direction, "tools imports worker.cli", "worker/tools/demo.py", "import worker.cli"),
    (import_direction, "errors imports worker.core.a", "worker/errors.py", "import worker.core.a"),
    (import_direction, "config imports worker.app", "worker/config.py", "import worker.app"),
    (import_direction, "worker imports worker.app", "worker/__init__.py", "import worker.app"),
    (import_direction, "schemas imports worker.errors", "schemas/base.py", "import worker.errors"),
    (provider_folders, "imports worker.providers.b.c", PROVIDER, "import worker.providers.b.c"),
    (provider_folders, "imports worker.providers.b", PROVIDER, "from ..b import c"),
    (provider_folders, "imports worker.providers", PROVIDER, "from worker.providers import b"),
    (
        provider_folders,
        "responses imports worker.providers.a",
        "worker/providers/responses.py",
        "import worker.providers.a",
    ),
    (no_cycle, "schemas.a -> schemas.a", "schemas/a.py", "from schemas import a"),
    (log_names, "worker/app.py:1: a log event", "worker/app.py", "log.info(f'order_{state}', a=1)"),
    (log_names, "worker/app.py:1: a log event", "worker/app.py", "self._note('order_' + state, a)"),
    (http_statuses, "a.py:1: an HTTP status", CORE, "x = outcome.status is not None"),
    (http_statuses, "a.py:1: an HTTP status", CORE, "x = outcome.status in {500, 501}"),
    (http_statuses, "a.py:1: an HTTP status", "worker/jobs/a.py", "x = 200 <= outcome.status < 300"),
    (environment, "worker/app.py:2: os.environ", "worker/app.py", "import os\nx = os.environ['X']"),
    (environment, "worker/app.py:1: os.getenv", "worker/app.py", "from os import getenv as g"),
    (environment, "worker/app.py:2: os.getenv", "worker/app.py", "import os as o\no.getenv('X')"),
    (environment, "demo.py:1: os.environ", "worker/tools/demo.py", "from os import environ"),
    (kafka_client, "aiokafka.AIOKafkaProducer", WEB, "from aiokafka import AIOKafkaProducer"),
    (kafka_client, "aiokafka.errors", "worker/app.py", "def f():\n import aiokafka.errors"),
    (
        state_backend,
        "worker/app.py:1: worker.kafka.state",
        "worker/app.py",
        "from worker.kafka.state import KafkaStateLog",
    ),
    (state_backend, "a.py:1: worker.kafka.scan", "worker/tools/a.py", "import worker.kafka.scan"),
    (
        state_backend,
        "a.py:2: worker.kafka.reading",
        "worker/tools/a.py",
        "def f():\n from worker.kafka.reading import a",
    ),
    (state_backend, "a.py:1: worker.kafka.following", WEB, "from worker.kafka.following import KafkaRecords"),
    (http_client, "worker/app.py:1: aiohttp", "worker/app.py", "import aiohttp"),
    (http_client, "aiohttp.ClientSession", "worker/publisher/sender.py", "from aiohttp import ClientSession"),
    (http_client, "httptools", WEB, "import httptools"),
    (http_client, "aiohttp.web", "worker/sim/network.py", "import aiohttp.web"),
    (http_client, "aiohttp.ClientSession", WEB, "from aiohttp import ClientSession"),
    (http_client, "aiohttp.ClientSession", WEB, "import aiohttp.web\naiohttp.ClientSession()"),
    (http_client, "aiohttp.client", "worker/sandbox/server.py", "import aiohttp.client"),
    (http_client, "urllib.request", "worker/publisher/a.py", "from urllib.request import urlopen"),
    (fast_loop, "uvloop", "worker/ownership/owner.py", "import uvloop"),
    (pure, "a.py:1: asyncio", CORE, "import asyncio"),
    (pure, "a.py:1: time", CORE, "import time"),
    (pure, "a.py:1: time.time", CORE, "from time import time"),
    (pure, "a.py:1: random", CORE, "import random"),
    (pure, "a.py:1: logging", CORE, "import logging"),
    (pure, "a.py:1: structlog", CORE, "import structlog"),
    (pure, "a.py:1: os", CORE, "import os"),
    (pure, "a.py:1: os.path", CORE, "from os import path"),
    (pure, "a.py:1: socket", CORE, "import socket"),
    (pure, "datetime.datetime.now", CORE, "from datetime import datetime as d\nd.now()"),
    (
        pure,
        "datetime.datetime.utcnow",
        "worker/providers/responses.py",
        "import datetime as d\nd.datetime.utcnow()",
    ),
    (pure, "uuid.uuid4", CORE, "import uuid\nuuid.uuid4()"),
    (pure, "AsyncFunctionDef", CORE, "async def f(): ..."),
    (pure, "Await", PROVIDER, "async def f(x):\n await x"),
    (pure, "AsyncFor", CORE, "async def f(x):\n async for y in x: ..."),
    (pure, "AsyncWith", CORE, "async def f(x):\n async with x: ..."),
    (pure, "async comprehension", CORE, "async def f(x):\n return [y async for y in x]"),
    (pure, "open()", CORE, "open('x')"),
)

SOUND: Files = {
    "schemas/__init__.py": "",
    "schemas/base.py": "import msgspec",
    "schemas/events.py": "from schemas.base import Base; from schemas import base",
    "schemas/generate.py": "from pathlib import Path; from schemas import events",
    "worker/__init__.py": "__version__ = '0'",
    "worker/__main__.py": "from worker.cli import main",
    "worker/cli.py": "import http.client, uvloop; from worker import __version__, app, config, tools",
    "worker/tools/demo.py": "import worker.app, worker.sandbox.server; from worker.tools import scenario",
    "worker/tools/scenario.py": "from urllib.request import urlopen",
    "worker/app.py": "from worker import config, kafka, publisher, web; import asyncio, os; os.getpid()",
    "worker/config.py": "import os; from worker.providers import registry; x = os.environ",
    "worker/errors.py": "from schemas import base",
    "worker/ports.py": "from worker.core.order import Order",
    "worker/metrics.py": "import prometheus_client; from worker import __version__",
    "worker/kafka/__init__.py": "",
    "worker/kafka/log.py": "import aiokafka; from worker.kafka import state; from worker.ports import StateLog",
    "worker/kafka/state.py": "",
    "worker/backend.py": "from worker.kafka.state import KafkaStateLog",
    "worker/publisher/sender.py": "import aiohappyeyeballs, httptools",
    "worker/web/page.py": "import aiohttp; from aiohttp.typedefs import Handler; aiohttp.web.Response()",
    "worker/sandbox/server.py": "from aiohttp import web; from worker.providers.sequra import wire",
    "worker/core/__init__.py": "from worker.core import order",
    "worker/core/order.py": "from datetime import datetime; import worker.errors; datetime.fromtimestamp(0)",
    "worker/core/status.py": "x = told.status == 'owed' or told.status != found.status",
    "worker/core/outbox.py": "import uuid, schemas.events; from worker.core import order; uuid.uuid5('', '')",
    "worker/providers/__init__.py": "",
    "worker/providers/responses.py": "from schemas import base",
    "worker/providers/registry.py": "from worker.providers import responses, qliro, sequra",
    "worker/providers/qliro/__init__.py": "",
    "worker/providers/sequra/steps.py": "from worker.providers.sequra import wire",
    "worker/providers/sequra/wire.py": "from worker.model.account import Account; import urllib.parse",
    "worker/model/account.py": "from schemas import base",
}


def plant(root: Path, files: Files) -> dict[str, Module]:
    """Write a small tree and read it as the project's own is read."""
    for path, source in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source, encoding="utf-8")
    return read_tree(root)


def check(rule: Rule, tree: Tree) -> list[str]:
    """Return what a rule says of a whole tree."""
    return [violation for module in tree.values() for violation in rule(module, tree)]


@pytest.mark.parametrize(("rule", "expected", "path", "source"), BROKEN)
def test_rule_sees_violation(rule: Rule, expected: str, path: str, source: str, tmp_path: Path) -> None:
    """A rule reports a tree that breaks it, with the place and the name."""
    assert any(expected in violation for violation in check(rule, plant(tmp_path, {path: source})))


def test_cycle_over_three_modules(tmp_path: Path) -> None:
    """A cycle is reported as a chain, and each module in it once."""
    sources = ("from schemas import b", "def f():\n from . import c", "import schemas.a")
    tree = plant(tmp_path, dict(zip(("schemas/a.py", "schemas/b.py", "schemas/c.py"), sources, strict=True)))
    assert check(no_cycle, tree)[0] == "schemas/a.py:1: schemas.a -> schemas.b -> schemas.c -> schemas.a"


def test_name_from_package_is_module(tmp_path: Path) -> None:
    """An area that is imported as a name of `worker` is judged as the area, not as the bare package."""
    tree = plant(tmp_path, {"worker/ownership/owner.py": "from worker import app", "worker/app.py": ""})
    assert check(import_direction, tree) == ["worker/ownership/owner.py:1: ownership imports worker.app"]


@pytest.mark.parametrize("rule", RULES)
def test_rule_accepts_sound_tree(rule: Rule, tmp_path: Path) -> None:
    """A rule is silent about a tree that follows the layout."""
    assert check(rule, plant(tmp_path, SOUND)) == []


def test_every_rule_has_violation() -> None:
    """No rule goes without an example that breaks it."""
    assert {rule for rule, *_ in BROKEN} == set(RULES)


def test_every_area_is_read() -> None:
    """The project's own modules were found, so that the tests above are not empty."""
    assert {"schemas", "core"} <= {module.area for module in TREE.values()}


@pytest.mark.parametrize(("entry", "fits"), [("notes.txt", False), ("docs", False), (".ci", True), ("worker", True)])
def test_top_level_rule(entry: str, fits: bool) -> None:
    """The rule of the root tells what belongs there from what does not."""
    assert top_level_fits(entry) is fits


def test_data_files_rule(tmp_path: Path) -> None:
    """A data file that no pattern names is reported, one that a pattern names is not."""
    settings = '[tool.setuptools.package-data]\n"worker.tools" = ["*.xml"]\n'
    plant(tmp_path, {"pyproject.toml": settings, "worker/tools/a.xml": "", "worker/web/page.html": ""})
    assert data_files_left_out(tmp_path, "worker") == ["worker/web/page.html"]
