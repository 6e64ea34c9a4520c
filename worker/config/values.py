"""The types of single settings: durations with a unit, header values, URLs, secrets."""

import re
import unicodedata
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr, ValidationInfo

from worker import is_loopback
from worker.core.membership import NAME_MAX, is_name

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s?(ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(value: object) -> float:
    """Parses `250ms`, `8s`, `1.5m` or `6h` into seconds. Raises `ValueError` that says what to write."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and (match := _DURATION.fullmatch(text)):
        return float(match[1]) * _UNITS_S[match[2]]
    if not isinstance(value, bool) and _NUMBER.fullmatch(str(text)):
        raise ValueError(f'a duration needs a unit: write "{text}s" for seconds (units: ms, s, m, h)')
    raise ValueError('must be a duration with a unit, such as "250ms", "8s", "15m" or "6h"')


def format_duration(seconds: float) -> str:
    """The inverse of `parse_duration`, in the largest unit that needs no fraction."""
    for unit, size in _UNITS_S.items():
        count = round(seconds / size, 6)
        if count and count.is_integer():
            return f"{count:.0f}{unit}"
    return f"{seconds:g}s"


_DAYS = re.compile(r"(\d{1,5})\s?d", re.ASCII)
_DAY_S = 86_400.0
_KEEP_DAYS = range(30, 36_501)


def parse_size(value: object) -> int:
    """Bytes, from a string with a unit such as "256MiB". Raises `ValueError`."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not 1 <= (size := int(found[1]) * _SIZE_UNITS[found[2]]) <= _SIZE_MAX:
        raise ValueError('must be a size with a unit, from "1MiB" to "1024GiB"')
    return size


def format_size(size: int) -> str:
    """As it is written in the file."""
    unit = next(unit for unit in ("GiB", "MiB") if size % _SIZE_UNITS[unit] == 0)
    return f"{size // _SIZE_UNITS[unit]}{unit}"


_SIZE = re.compile(r"([0-9]{1,7}) ?(MiB|GiB)")
_SIZE_UNITS = {"MiB": 2**20, "GiB": 2**30}
_SIZE_MAX = 2**40


def _keep_for(value: object) -> float:
    """Seconds of a text such as `800d`; of `0`, which is for ever, 0. Raises `ValueError`."""
    text = str(value).strip()
    if text == "0":
        return 0.0
    match = _DAYS.fullmatch(text)
    if match is None or int(match[1]) not in _KEEP_DAYS:
        raise ValueError('must be from "30d" to "36500d", or "0": for ever')
    return int(match[1]) * _DAY_S


def _kept_for(seconds: float) -> str:
    return f"{seconds / _DAY_S:.0f}d" if seconds else "0"


def _split(value: object) -> object:
    """A list may be one string with commas, because environment variables cannot contain lists."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _joined(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _header_text(value: str) -> str:
    if not value or value != value.strip():
        raise ValueError("must not be empty, nor start or end with a space")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise ValueError("must not contain control characters (it is sent in an HTTP header)")
    return value


def _merchant(value: str) -> str:
    if value in {".", ".."}:
        raise ValueError("must not be . or .. (it is part of a URL's path)")
    return _header_text(value)


def _username(value: str) -> str:
    if ":" in value:
        raise ValueError("must not contain a colon (HTTP basic authentication, RFC 7617, does not allow it)")
    return _header_text(value)


def _password(value: SecretStr) -> SecretStr:
    _header_text(value.get_secret_value())
    return value


def _base_url(value: str) -> str:
    form = 'must look like "https://live.example.com", without credentials, query or fragment'
    try:
        url = urlsplit(value)
        _ = url.port
    except ValueError:
        raise ValueError(form) from None
    if not url.hostname or "@" in url.netloc or "?" in value or "#" in value or not re.fullmatch(r"[!-\[\]-~]+", value):
        raise ValueError(form)
    if url.scheme not in {"http", "https"}:
        raise ValueError("must start with https://")
    return value


def is_clear(url: str) -> bool:
    """Whether requests to this URL cross a network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def private_url(value: str, info: ValidationInfo, hint: str) -> str:
    """A validator: returns the URL. Raises `ValueError` if it is http:// on another machine without `allow_http`."""
    if is_clear(value) and not info.data.get("allow_http"):
        raise ValueError(f"must start with https:// (http:// is for 127.0.0.1 and localhost; elsewhere {hint})")
    return value


def _instance_name(value: str) -> str:
    if value and not is_name(value):
        raise ValueError(f'must be "auto", "", or at most {NAME_MAX} letters, digits, dots, hyphens and underscores')
    return value


def _host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(not re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in value):
        raise ValueError('must be host names without a port, such as "cartsync.shop.internal"')
    return tuple(name.lower() for name in value)


def _token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"([!-~]{16,4096})?", value.get_secret_value()):
        raise ValueError("must be 16 or more ASCII characters without spaces; `openssl rand -hex 32` generates one")
    return value


def _public_url(value: str) -> str:
    if value and is_clear(_base_url(value)):
        raise ValueError("must start with https:// (callbacks contain shoppers' data, and their URLs are secrets)")
    return value.rstrip("/")


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        try:
            ip_network(each)
        except ValueError:
            raise ValueError('must be addresses or networks, such as "10.1.2.3" or "10.0.0.0/8"') from None
    return value


def _token_url(value: str) -> str:
    if value and is_clear(_base_url(value)):
        raise ValueError("must start with https:// (http:// is for 127.0.0.1 and localhost): a secret is sent to it")
    return value


def _proxy(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        url = urlsplit(text)
        has_address = bool(url.hostname and url.port)
    except ValueError:
        has_address = False
    if text and not (has_address and re.fullmatch(r"http://[!-.0->@-\[\]-~]+/?", text)):
        raise ValueError(
            'must look like "http://proxy.example:3128" or "http://user:password@proxy.example:3128", '
            "with special characters in user and password percent-encoded"
        )
    return value


def _proxy_shown(value: SecretStr) -> str:
    """The proxy without its credentials."""
    scheme, separator, rest = value.get_secret_value().partition("://")
    credentials, at, address = rest.rpartition("@")
    return f"{scheme}{separator}{'***' if credentials else ''}{at}{address}"


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, return_type=str)]
KeepFor = Annotated[float, BeforeValidator(_keep_for), PlainSerializer(_kept_for, return_type=str)]
Durations = Annotated[tuple[Duration, ...], BeforeValidator(_split)]
Secret = Annotated[
    SecretStr,
    PlainSerializer(lambda secret: "***" if secret.get_secret_value() else "", return_type=str),
]


def _lines(value: object) -> object:
    """A list of secrets may be one string with a secret per line, as in a file."""
    return [line.strip() for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


SECRET_MIN = 32
"""Minimum length of a signing secret, in characters."""
_SECRETS_MAX = 4


def _signing(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if len(value) > _SECRETS_MAX:
        raise ValueError(f"must be at most {_SECRETS_MAX}: the one that signs, and former ones that are still accepted")
    if any(len(secret.get_secret_value()) < SECRET_MIN for secret in value):
        raise ValueError(f"must each have {SECRET_MIN} or more characters; `openssl rand -hex 32` generates one")
    return value


_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


def _times_of_day(value: object) -> object:
    """Parses `HH:MM`, or a list of them, into distinct minutes after midnight."""
    texts = _split(value)
    form = 'must be a time of day such as "03:30", or a list of them'
    if not isinstance(texts, (list, tuple)) or not texts:
        raise ValueError(form)
    found = set()
    for text in texts:
        if not isinstance(text, str) or not (match := _TIME_OF_DAY.fullmatch(text)):
            raise ValueError(form)
        found.add(int(match[1]) * 60 + int(match[2]))
    return sorted(found)


def _times_shown(minutes: tuple[int, ...]) -> str | list[str]:
    shown = [f"{each // 60:02}:{each % 60:02}" for each in minutes]
    return shown[0] if len(shown) == 1 else shown


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            'must be the IANA name of a time zone, such as "Europe/Madrid", and known on this machine (package tzdata)'
        ) from None
    return value


def _path(value: str) -> str:
    if not re.fullmatch(r"/[!-\[\]-~]*", value) or "?" in value or "#" in value:
        raise ValueError('must be a URL path such as "/orders/delivery_reports", without query or fragment')
    return value


TimesOfDay = Annotated[
    tuple[int, ...],
    BeforeValidator(_times_of_day),
    PlainSerializer(_times_shown, return_type=str | list[str]),
]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
UrlPath = Annotated[str, AfterValidator(_path)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
MerchantId = Annotated[str, AfterValidator(_merchant)]
Username = Annotated[str, AfterValidator(_username)]
Password = Annotated[Secret, AfterValidator(_password)]
Proxy = Annotated[SecretStr, AfterValidator(_proxy), PlainSerializer(_proxy_shown, return_type=str)]
InstanceName = Annotated[str, AfterValidator(_instance_name)]
NonEmpty = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Texts = Annotated[tuple[NonEmpty, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_lines), AfterValidator(_signing)]
Token = Annotated[Secret, AfterValidator(_token)]
TokenUrl = Annotated[str, AfterValidator(_token_url)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_networks)]
HostNames = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_host_names)]
Servers = Annotated[NonEmpty, BeforeValidator(_joined)]
