"""`cartsync console user`: who may sign in at a console with `auth = "basic"`."""

import json
import sys
from getpass import getpass
from pathlib import Path

from schemas.console import Role
from worker.errors import UsageError
from worker.web.console.auth import read_users, remove_user, write_user


def add_user(path: Path, name: str, role: Role, *, as_json: bool) -> int:
    """Asks for a password, twice on a terminal, and writes the user; 0. Raises `UsageError`, `ConfigError`."""
    if sys.stdin.isatty():
        password = getpass(f"password of {name}: ")
        if getpass("once more: ") != password:
            raise UsageError("the two passwords differ; nothing was written")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    is_new = write_user(path, name, role, password)
    said = {"user": name, "role": role, "file": str(path), "new": is_new}
    print(json.dumps(said) if as_json else f"{name}, {role}: {'added to' if is_new else 'changed in'} {path}")
    return 0


def drop_user(path: Path, name: str, *, as_json: bool) -> int:
    """Takes a user out; 0. Raises `UsageError` when there is none, `ConfigError`."""
    if not remove_user(path, name):
        raise UsageError(f"{path}: there is no user {name}")
    print(json.dumps({"user": name, "file": str(path)}) if as_json else f"{name}: removed from {path}")
    return 0


def list_users(path: Path, *, as_json: bool) -> int:
    """Prints names and roles; 0. Raises `ConfigError`."""
    users = {name: line.role for name, line in sorted(read_users(path).items())}
    print(json.dumps(users) if as_json else "\n".join(f"{name}: {role}" for name, role in users.items()))
    return 0
