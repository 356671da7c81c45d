"""curl's flags, and what they come to: a FetchOptions."""

import base64
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import click

from yelpaze.app.fetch import FetchOptions
from yelpaze.cli.policies import engine_options, host_policies_of
from yelpaze.cli.seconds import Seconds
from yelpaze.fetch.items import REMOTE_NAME, Shape
from yelpaze.fetch.job import TransferOptions
from yelpaze.model.errors import InputError, MisuseError
from yelpaze.model.request import Timeout
from yelpaze.policy.rate import Rate
from yelpaze.policy.retry import Retry
from yelpaze.version import __version__

F = TypeVar("F", bound=Callable[..., Any])
# curl has no limit; none of ours is infinite.
_HOURS = 24 * 3600.0
_PARK, _FIRST_BYTE = 60.0, 30.0
_MANY = 1 << 62  # bodies go to files: the disk is the limit
_URLENCODE = re.compile(r"([^=@]*)([=@])(.*)", re.DOTALL)
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes of an argument that are no UTF-8
_HEADER = re.compile(r"([^:;]+)([:;])\s*(.*)", re.DOTALL)


class _RemoteName(click.Option):
    """`-O`: takes its place among the -o, in the order of the command line."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # noqa: ARG002
        parser.add_option(obj=self, opts=self.opts, dest="outputs", action="append_const", const=REMOTE_NAME)


def _group(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


REQUEST = _group(
    click.option("-X", "--request", "method", metavar="METHOD", help="The method. [default: GET, or POST with -d]"),
    click.option("-H", "--header", "headers", metavar="LINE", multiple=True, help="`Name: value`, or @file with many; `Name:` takes one of ours away."),
    click.option("-d", "--data", "data", metavar="TEXT", multiple=True, help="Body as a form; @file reads one without its line ends. Several are joined by &."),
    click.option("--data-raw", metavar="TEXT", multiple=True, help="As -d, but @ means itself."),
    click.option("--data-binary", metavar="TEXT", multiple=True, help="As -d, but @file is sent as it is."),
    click.option("--data-urlencode", metavar="TEXT", multiple=True, help="As -d, encoded: `content`, `name=content`, `@file` or `name@file`."),
    click.option("--json", "json_data", metavar="TEXT", multiple=True, help="JSON body, with its headers; @file reads one."),
    click.option("-G", "--get", "as_query", is_flag=True, help="Put the -d data into the URL's query."),
    click.option("-I", "--head", "as_head", is_flag=True, help="Ask for the headers only."),
    click.option("-u", "--user", metavar="USER:PASSWORD", help="Basic authentication."),
    click.option("-A", "--user-agent", metavar="TEXT", default=f"yelpaze/{__version__}", help="[default: yelpaze/VERSION]"),
    click.option("-e", "--referer", metavar="URL"),
    click.option("-b", "--cookie", "cookies", metavar="NAME=VALUE", multiple=True, help="Cookies to send."),
    click.option("--compressed", is_flag=True, help="Ask for a compressed body, and decode it."),
    click.option("-g", "--globoff", is_flag=True, help="Take {} and [] in URLs as they are."),
)  # fmt: skip
OUTPUT = _group(
    click.option("-o", "--output", "outputs", metavar="FILE", multiple=True, help="File for the body, the nth for the nth URL. #1: what the first glob took; {n}, {host}, {name}."),
    click.option("-O", "--remote-name", cls=_RemoteName, is_flag=True, expose_value=False, help="Name the file as the URL does."),
    click.option("--remote-name-all", is_flag=True, help="-O for every URL."),
    click.option("--output-dir", metavar="FOLDER", default="", help="Where -o and -O begin, and what they can't leave."),
    click.option("--create-dirs", is_flag=True, help="Always so: folders are made as needed."),
    click.option("--clobber/--no-clobber", default=False, help="Replace files that exist. [default: no]"),
    click.option("-i", "--include", "--show-headers", is_flag=True, help="The headers, too, before the body."),
    click.option("--outcomes", metavar="FILE", help="One JSON line for each URL: status, bytes, times, attempts, error, path."),
    click.option("--resume", is_flag=True, help="Skip what a former call completed: by --outcomes, and by the files that are there."),
)  # fmt: skip
TRANSFER = _group(
    click.option("-L", "--location", is_flag=True, help="Follow redirects."),
    click.option("--max-redirs", metavar="N", type=click.IntRange(0), default=50, show_default=True),
    click.option("-m", "--max-time", metavar="SECONDS", type=Seconds(), help="For each attempt."),
    click.option("--connect-timeout", metavar="SECONDS", type=Seconds(), help="For name, connection and TLS. [default: 5]"),
    click.option("-f", "--fail", is_flag=True, help="A status of 400 or above is a failure, its body not wanted."),
    click.option("--fail-empty", is_flag=True, help="An empty body is a failure."),
    click.option("--retry", "retries", metavar="N", type=click.IntRange(0), default=2, show_default=True, help="Attempts after the first, where the failure is one that may pass."),
    click.option("--retry-max-time", metavar="SECONDS", type=Seconds(), help="Begin none later than that after the first."),
    click.option("--max-filesize", metavar="BYTES", type=click.IntRange(1), help="Refuse larger bodies."),
    click.option("-k", "--insecure", is_flag=True, help="Check no certificate."),
    click.option("--cacert", metavar="FILE", help="PEM bundle to trust."),
    click.option("-E", "--cert", metavar="FILE[:PASSWORD]", help="Client certificate, PEM."),
    click.option("--key", metavar="FILE", help="Its key, if apart."),
    click.option("-x", "--proxy", metavar="URL"),
    click.option("--http2", is_flag=True, help="Over TLS where the server offers it, which is the default."),
    click.option("--http1.1", "http11", is_flag=True, help="Nothing newer."),
    click.option("--http2-prior-knowledge", is_flag=True, help="Nothing older, many streams on one connection."),
)  # fmt: skip
MANY = _group(
    click.option("--input", "input_", metavar="FILE", help="URLs from there (- is stdin): a line each, or JSON with url, method, headers, json, data, output."),
    click.option("-Z", "--parallel", is_flag=True, help="Always so."),
    click.option("--parallel-max", metavar="N", type=click.IntRange(1, 5000), default=50, show_default=True, help="Transfers at once."),
    click.option("--parallel-immediate", is_flag=True, help="Always so: no transfer waits to share a connection."),
    click.option("--rate", metavar="N/U", help="Starts in time, U being s, m, h or d (a number alone: an hour)."),
    click.option("--host-rate", metavar="N/U", help="The same for each host."),
)  # fmt: skip


# ── from flags to options ───────────────────────────────────────────────────────


def options_of(urls: tuple[str, ...], flags: dict[str, Any], watched: dict[str, Any]) -> FetchOptions:
    if flags["resume"] and not flags["outcomes"] and not (flags["outputs"] or flags["remote_name_all"]):
        raise click.UsageError("--resume goes by the --outcomes of a former call, or by its files (-o, -O)")
    return FetchOptions(
        urls=tuple(_UNDECODED.sub(lambda byte: quote(os.fsencode(byte[0])), url) for url in urls),
        input=flags["input_"],
        outputs=tuple(flags["outputs"]),
        folder=flags["output_dir"],
        name_all=flags["remote_name_all"],
        globbing=not flags["globoff"],
        shape=_shape(flags),
        transfer=TransferOptions(
            parallel_max=flags["parallel_max"],
            fail=flags["fail"],
            fail_empty=flags["fail_empty"],
            include=flags["include"] or flags["as_head"],
            clobber=flags["clobber"],
            resume=flags["resume"],
        ),
        outcomes=flags["outcomes"],
        engine=_engine(flags) | watched,
    )


def _engine(flags: dict[str, Any]) -> dict[str, Any]:
    at_once = flags["parallel_max"]
    host_rate, rate = (_rate(flags[name], f"--{name.replace('_', '-')}") for name in ("host_rate", "rate"))
    options = engine_options(
        per_host=flags["per_host"] or at_once,
        deadline=flags["deadline"],
        park=flags["park"] or _PARK,
        breaker=flags["breaker"],
        host_rate=host_rate,
    )
    longest = flags["max_time"] or _HOURS
    connect = flags["connect_timeout"] or Timeout().connect
    options |= {
        "concurrency": at_once,
        "rate": rate,
        "timeout": Timeout(connect=connect, first_byte=flags["max_time"] or _FIRST_BYTE, attempt=longest),
        "retry": Retry(attempts=flags["retries"] + 1, max_time=flags["retry_max_time"] or float("inf")),
        "verify": not flags["insecure"],
        "ca_file": flags["cacert"],
        "client_cert": _certificate(flags["cert"], flags["key"]),
        "proxy": flags["proxy"],
        "http_version": "1.1" if flags["http11"] else "2" if flags["http2_prior_knowledge"] else "auto",
        "max_redirects": flags["max_redirs"] if flags["location"] else 0,
        "max_body": flags["max_filesize"] or _MANY,
        "compressed": flags["compressed"],
        "user_agent": flags["user_agent"],
        "omit_headers": [name for name, value in _headers(flags["headers"]) if value is None],
    }
    if flags["host_policies"]:
        options["hosts"] = host_policies_of(flags["host_policies"], options)
    return options


def _rate(text: str | None, flag: str) -> str | None:
    """Curl's form, in which a number alone is for an hour."""
    if text is None:
        return None
    try:
        return str(Rate.parse(text, bare="h"))
    except MisuseError as error:
        raise MisuseError(f"{flag}: {error}") from None


def _certificate(cert: str | None, key: str | None) -> tuple[str | None, ...] | None:
    if cert is None:
        return None
    path, password = cert, None
    if not os.path.exists(cert) and ":" in cert:  # noqa: PTH110
        path, _, password = cert.rpartition(":")
    return path, key, password


def _check_stdin(flags: dict[str, Any]) -> None:
    """Refuse two uses of standard input. Raises MisuseError."""
    names = ("headers", "data", "data_binary", "json_data")
    uses = [text for name in names for text in flags[name] if text == "@-"]
    uses += [text for text in flags["data_urlencode"] if text.endswith("@-")]
    if flags["input_"] == "-" and uses:
        raise MisuseError(f"--input - and {uses[0]} both read standard input: give one of them a file")
    if len(uses) > 1:
        raise MisuseError("several options read standard input by @-: give all but one of them a file")


def _shape(flags: dict[str, Any]) -> Shape:
    _check_stdin(flags)
    headers = _headers(flags["headers"])
    body, content_type = _body(flags)
    query = ""
    if flags["as_query"] and body is not None:
        query, body = body.decode("utf-8", "replace"), None
    named = {name.lower() for name, _ in headers}
    defaults = {"Content-Type": content_type if body is not None else None, "Referer": flags["referer"]}
    defaults["Cookie"] = "; ".join(_cookie(text) for text in flags["cookies"]) or None
    if content_type == "application/json":
        defaults["Accept"] = "application/json"
    if flags["user"] is not None:
        defaults["Authorization"] = f"Basic {base64.b64encode(os.fsencode(_user(flags['user']))).decode()}"
    headers += [(name, value) for name, value in defaults.items() if value and name.lower() not in named]
    method = flags["method"] or ("HEAD" if flags["as_head"] else None)
    wanted = tuple((name, value) for name, value in headers if value is not None)
    return Shape(method=method, headers=wanted, body=body, query=query)


def _cookie(text: str) -> str:
    if "=" not in text:
        raise MisuseError(f"-b {text!r}: write NAME=VALUE; cookie files are not read")
    return text


def _user(text: str) -> str:
    if ":" in text:
        return text
    if not sys.stdin.isatty():
        raise MisuseError(f"-u {text!r}: write USER:PASSWORD; there is no terminal to ask on")
    return f"{text}:{click.prompt('Password', hide_input=True, err=True, default='', show_default=False)}"


def _headers(given: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """`Name: value`, `Name;` for an empty one, `Name:` for none (None); @file has one a line."""
    lines = [line for text in given for line in (_file_lines(text[1:]) if text.startswith("@") else [text])]
    headers: list[tuple[str, str | None]] = []
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None or (found[2] == ";" and found[3]):
            raise MisuseError(f"-H {line!r}: write `Name: value`")
        empty = "" if found[2] == ";" else None
        headers.append((found[1].strip(), found[3].strip() or empty))
    return headers


def _body(flags: dict[str, Any]) -> tuple[bytes | None, str | None]:
    forms = ("data", "data_raw", "data_binary", "data_urlencode")
    if flags["json_data"] and any(flags[name] for name in forms):
        raise MisuseError("give --json or -d, not both")
    if flags["json_data"]:
        return b"".join(_content(text, keep=True) for text in flags["json_data"]), "application/json"
    parts = [_content(text, keep=False) for text in flags["data"]]
    parts += [os.fsencode(text) for text in flags["data_raw"]]
    parts += [_content(text, keep=True) for text in flags["data_binary"]]
    parts += [_encoded(text) for text in flags["data_urlencode"]]
    return (b"&".join(parts), "application/x-www-form-urlencoded") if parts else (None, None)


def _encoded(text: str) -> bytes:
    """`content`, `=content`, `name=content`, `@file`, `name@file`: curl's forms."""
    found = _URLENCODE.fullmatch(text)
    if found is None:
        return quote_plus(os.fsencode(text)).encode()
    content = _read(found[3]) if found[2] == "@" else os.fsencode(found[3])
    return os.fsencode(f"{found[1]}=" if found[1] else "") + quote_plus(content).encode()


def _content(text: str, *, keep: bool) -> bytes:
    if not text.startswith("@"):
        return os.fsencode(text)
    data = _read(text[1:])
    return data if keep else data.replace(b"\r", b"").replace(b"\n", b"")


def _file_lines(path: str) -> list[str]:
    return [line for line in _read(path).decode("utf-8", "replace").splitlines() if line.strip()]


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"@{path}: cannot be read: {error.strerror}") from None
