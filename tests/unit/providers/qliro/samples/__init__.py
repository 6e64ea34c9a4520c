"""The samples of Qliro's documentation, byte by byte (developers.qliro.com, "Callbacks", read 2026-11)."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def sample(name: str) -> bytes:
    """One of them; the one that is no JSON is a `.txt`."""
    file = _FOLDER / f"{name}.json"
    return (file if file.exists() else _FOLDER / f"{name}.txt").read_bytes()


def names() -> list[str]:
    """Of all of them."""
    return sorted(file.stem for file in _FOLDER.iterdir() if file.suffix in (".json", ".txt"))
