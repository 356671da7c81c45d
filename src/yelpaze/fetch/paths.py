"""Where a body goes: `-o` templates, kept inside the folder that was asked for.

    #1 #2 …    what the globs of the URL took (curl's)
    {n}        the URL's number, from 1
    {host}     its host
    {name}     the last segment of its path, `index.html` if there is none

What stands in a URL is data, so whatever a template comes to must stay below the folder that
it names before its first variable (or below --output-dir).
"""

import os.path
import re
from urllib.parse import urlsplit

from yelpaze.model.errors import MisuseError

_VARIABLE = re.compile(r"#([0-9]+)|\{(n|host|name)\}")
_NO_NAME = "index.html"


class Template:
    """One `-o`. `folder` is that of --output-dir, or empty."""

    def __init__(self, text: str, folder: str = "") -> None:
        if not text or "\0" in text:
            raise MisuseError("-o takes a file name")
        self._text = text
        first = _VARIABLE.search(text)
        self.varies = first is not None
        fixed = text if first is None else text[: first.start()]
        inside = os.path.normpath(os.path.join(folder, os.path.dirname(fixed)))
        self.base = os.path.normpath(folder) if folder else inside
        if not is_within(inside, self.base, same=True):
            raise MisuseError(f"-o {text}: is outside --output-dir {folder}")
        self._folder = folder

    def path(self, url: str, number: int, values: tuple[str, ...]) -> str:
        """The file for that URL; MisuseError if it would be outside the folder."""

        def value(found: re.Match[str]) -> str:
            if found[1] is not None:
                index = int(found[1])
                return values[index - 1] if 0 < index <= len(values) else found[0]
            if found[2] == "n":
                return str(number)
            return host_of(url) if found[2] == "host" else name_of(url) or _NO_NAME

        path = os.path.normpath(os.path.join(self._folder, _VARIABLE.sub(value, self._text)))
        if not is_within(path, self.base):
            raise MisuseError(f"-o {self._text} would be {path!r}, outside {self.base!r}")
        return path


def inside(path: str, folder: str) -> str:
    """A path that came with the input, below `folder`; MisuseError if it leads out."""
    whole = os.path.normpath(os.path.join(folder or ".", path))
    if "\0" in path or not is_within(whole, os.path.normpath(folder or ".")):
        raise MisuseError(f"output {path!r} is outside the folder {folder or '.'!r}")
    return whole


def is_within(path: str, base: str, *, same: bool = False) -> bool:
    """Whether a normalised path is below a normalised folder (or the folder itself)."""
    if path == base:
        return same
    if base == ".":
        return not (os.path.isabs(path) or path == ".." or path.startswith("../"))
    if set(base.split("/")) == {".."}:  # ../x is below .., ../../x is not
        return path.startswith(base + "/") and not path.startswith(base + "/..")
    return path.startswith(base.rstrip("/") + "/")


def host_of(url: str) -> str:
    """The host, without brackets and port."""
    return (urlsplit(url).hostname or "").replace(":", "_")


def name_of(url: str) -> str:
    """The last segment of the path as it stands in the URL; empty if there is none."""
    return urlsplit(url).path.rpartition("/")[2]
