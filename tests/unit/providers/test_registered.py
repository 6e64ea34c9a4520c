"""A new provider: the pages that are to name it, and the simulation that is to play it."""

from pathlib import Path

import pytest

from tests.simulation.market import ALL
from worker.providers.registry import CALLBACKS, PROVIDERS, RECONCILERS
from worker.sandbox.registry import SANDBOXES
from worker.tools.scenario.models import MODELS

ROOT = Path(__file__).resolve().parents[3]


def page(name: str) -> str:
    """A page of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_pages(provider: str) -> None:
    """An account to copy, the name to write, its sandbox."""
    assert f'provider = "{provider}"' in page("deploy/cartsync.example.toml")
    (row,) = [line for line in page("deploy/OPERATIONS.md").splitlines() if line.startswith("| `provider` |")]
    assert f"`{provider}`" in row
    kind = SANDBOXES[provider]
    trying = page("worker/sandbox/TRYING.md")
    assert f"| `{provider}` |" in trying
    assert kind.form in trying
    assert kind.example in trying


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_responses(provider: str) -> None:
    """What its statuses mean is where everybody looks for it."""
    assert (ROOT / "worker" / "providers" / provider / "responses.py").is_file()


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_addresses(provider: str) -> None:
    """Each purpose of its callbacks, from the row that begins with its name to the next one that does."""
    rows = page("deploy/CALLBACKS.md").partition(f"| `{provider}` |")[2].split("\n| `", 1)[0]
    assert [purpose for purpose in CALLBACKS[provider].purposes if f"`{purpose}`" not in rows] == []


@pytest.mark.parametrize("provider", [name for name, model in MODELS.items() if model is not None])
def test_scenarios(provider: str) -> None:
    """What a scenario can say of it has a column."""
    heads = [line for line in page("schemas/SCENARIOS.md").splitlines() if line.startswith("| | ")]
    assert any(RECONCILERS[provider].title in head for head in heads)


def test_simulation() -> None:
    """It is played under faults, beside the others."""
    assert set(ALL.values()) == set(PROVIDERS)
