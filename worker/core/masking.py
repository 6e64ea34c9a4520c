"""Reasons without what may say who somebody is: for lists of orders, the index of the console, histories. Pure."""

import re

KIND_MAX = 240
"""Characters of a reason that are kept."""

# What may say who somebody is: addresses of e-mail and of the web, quoted texts, long numbers, words with digits.
_PERSONAL = re.compile(
    r"""https?://\S+|[^\s@,;:()<>"']+@[^\s@,;:()<>"']+|"[^"]*"|'[^'\s][^']*'|«[^»]*»|\b\w*\d\w*\d\w*\d\w*\b"""
)
_WORDS_OF_PROVIDER = re.compile(r"[1-5]\d\d: ")
# Of a provider's words, those that are written like names; the first of a sentence is written so whatever it is.
_NAME = re.compile(r"(?<![.:;!?] )(?<!^)\b[^\W\d_][^\W\d_]*[^\W\d_]\b")
_STATUS_CODE = re.compile(r"[1-5]\d\d|\d{1,2}")


def reason_kind(reason: str) -> str:
    """A reason without what is of one order alone: what may be personal, and numbers, are `…`. Equal for orders that
    wait for the same. Status codes of HTTP stay.
    """
    kind = _PERSONAL.sub(_masked, reason[: 4 * KIND_MAX])
    if _WORDS_OF_PROVIDER.match(kind):
        kind = _NAME.sub(lambda match: match[0] if match[0][:1].islower() or match[0].isupper() else "…", kind)
    kind = re.sub(r"\s+", " ", kind).strip()
    return kind if len(kind) <= KIND_MAX else kind[: KIND_MAX - 1] + "…"


def _masked(match: re.Match[str]) -> str:
    return match[0] if _STATUS_CODE.fullmatch(match[0]) else "…"


def reason_family(kind: str) -> str:
    """A kind of reason without any numbers but statuses of HTTP at its beginning: what many orders have in common."""
    begins = _WORDS_OF_PROVIDER.match(kind)
    head = begins[0] if begins else ""
    return head + _NUMBER.sub("…", kind[len(head) :])


_NUMBER = re.compile(r"\d+")
