"""What commands print with `--json`, where it is not one of the views: `schemas/json/command.<name>.json`.

A list is printed as JSON lines, one object each, and the schema is that of a line. An error is one object, too, on
standard output: `Refused`.
"""

from collections.abc import Mapping

from msgspec import Struct

from schemas.console import OrderRow


class Refused(Struct, frozen=True):
    """Why a command has not done what it was asked."""

    ok: bool
    """False."""
    problems: list[str]
    """What is wrong, and what to do; at least one."""
    exit_code: int
    """That of the process."""


PRINTED: Mapping[str, type[Struct]] = {
    "error": Refused,
    "orders_list": OrderRow,
}
"""By the name of the schema."""
