"""Response headers, parsed when they are first read.

At thousands of answers a second most header blocks are never looked at, so a block is
kept as the bytes that came and costs nothing until then.
"""

from collections.abc import Iterator, Mapping

from yelpaze.model.secrets import SECRETS


def parse_block(raw: bytes) -> tuple[tuple[str, str], ...]:
    """Split a raw header block into (name, value) pairs, in order, names as sent.

    The block may begin with interim answers (1xx, RFC 9110 §15.2) or a proxy's answer to
    CONNECT; only the last answer's fields count. Bytes outside ASCII are read as Latin-1
    (RFC 9110 §5.5). A line without a colon is dropped; a folded line (obs-fold, RFC 9112
    §5.2) is joined to the field before it.
    """
    pairs: list[tuple[str, str]] = []
    for line in raw.decode("latin-1").split("\n"):
        text = line.rstrip("\r")
        if text.startswith("HTTP/"):
            pairs.clear()
        elif text[:1] in (" ", "\t") and pairs:
            name, value = pairs[-1]
            pairs[-1] = (name, f"{value} {text.strip()}".strip())
        else:
            name, colon, value = text.partition(":")
            if colon:
                pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


class Headers(Mapping[str, str]):
    r"""A read-only mapping with names compared without case.

    Several fields of one name are joined by a comma and a space (RFC 9110 §5.3); use
    `get_all` where that is wrong (Set-Cookie).

    >>> headers = Headers(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    >>> headers["content-type"]
    'text/plain'
    """

    __slots__ = ("_folded", "_pairs", "raw")

    def __init__(self, raw: bytes = b"") -> None:
        self.raw = raw
        self._pairs: tuple[tuple[str, str], ...] | None = None
        self._folded: dict[str, list[str]] | None = None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All fields as (name, value), in order, names as sent."""
        if self._pairs is None:
            self._pairs = parse_block(self.raw)
        return self._pairs

    def _table(self) -> dict[str, list[str]]:
        if self._folded is None:
            self._folded = {}
            for name, value in self.pairs:
                self._folded.setdefault(name.lower(), []).append(value)
        return self._folded

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, one for each field sent; empty if there is none."""
        return list(self._table().get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._table()[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())

    def __repr__(self) -> str:
        return f"Headers({SECRETS.headers(self.items())!r})"

    def __reduce__(self) -> tuple[type["Headers"], tuple[bytes]]:
        return Headers, (self.raw,)
