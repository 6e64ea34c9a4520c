"""A request without a connection: the parts of aiohttp's request that the receiver uses."""

from collections.abc import Mapping, Sequence


class _Headers:
    """Headers with case-insensitive names."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._by_name = {name.lower(): value for name, value in headers.items()}

    def get(self, name: str, default: str) -> str:
        return self._by_name.get(name.lower(), default)

    def getall(self, name: str, default: Sequence[str]) -> Sequence[str]:
        value = self._by_name.get(name.lower())
        return default if value is None else [value]


class _Content:
    """A complete body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def is_eof(self) -> bool:
        return True

    def read_nowait(self) -> bytes:
        return self._body


class Handed:
    """Stands in for `web.BaseRequest` in the receiver."""

    protocol = None
    remote = ""

    def __init__(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.raw_path = raw_path
        self.headers = _Headers(headers)
        self.content = _Content(body)
        self.content_length = len(body)
