"""The sandbox's page: one hand-written HTML document, no scripts, nothing loaded from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;max-width:75em}"
    "table{border-collapse:collapse;margin:.5em 0 2em}"
    "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
    "input{width:40em;font:inherit}"
)
_ATTEMPTS = ("number", "received", "path", "what", "status", "fault", "applied", "idempotency key")
_PUSHES = ("sent", "order", "what", "answer")

Rows = Iterable[Sequence[object]]


def _table(heads: Sequence[str], rows: Rows) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<table><tr>{head}</tr>\n{body}</table>\n"


def page(
    provider: str,
    plan: str,
    counts: Mapping[str, int],
    orders: tuple[Sequence[str], Rows],
    attempts: Rows,
    pushes: Rows,
) -> str:
    """The document. `orders`: heads and rows; rows of the others have the cells of the heads above. All are escaped."""
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Sandbox provider: {escape(provider)}</title>'
        f"<style>{_STYLE}</style>\n"
        f"<h1>Sandbox provider: {escape(provider)}</h1>\n"
        "<p>Stands in for a payment provider; for local trying-out only. Amounts are minor units with tax. "
        '<a href="/orders">/orders</a> and <a href="/log">/log</a> are the same as JSON.</p>\n'
        '<form method="post" action="/faults"><label>Faults '
        f'<input name="plan" value="{escape(plan)}" placeholder="500=0.05,reset_applied=0.02,slow=0.1:0.3s">'
        "</label> <button>Set</button></form>\n"
        f"<h2>Answers, faults, pushes</h2>\n{_table(('what', 'count'), counts.items())}"
        f"<h2>Newest orders</h2>\n{_table(*orders)}"
        f"<h2>Newest attempts</h2>\n{_table(_ATTEMPTS, attempts)}"
        f"<h2>Newest pushes</h2>\n{_table(_PUSHES, pushes)}</html>\n"
    )
