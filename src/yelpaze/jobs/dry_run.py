"""`yelpaze run --dry-run`: the requests of the first rows, without sending any."""

import asyncio
from itertools import islice
from typing import Any

from yelpaze.compute.handler import fault_of
from yelpaze.compute.protocol import CallError
from yelpaze.flow.arguments import pack_row, unpack
from yelpaze.flow.graph import ROW, Graph, Node
from yelpaze.flow.plan import Plan
from yelpaze.io.protocol import BadRow, Row
from yelpaze.jobs.input_feed import source_of
from yelpaze.jobs.options import RunOptions
from yelpaze.model.closing import closing
from yelpaze.model.errors import MisuseError
from yelpaze.model.request import Request
from yelpaze.model.secrets import HIDDEN, Secrets

_ROWS = 3
_BODY = 300


def preview(plan: Plan, options: RunOptions) -> list[str]:
    """Lines to print. Steps that need an answer can't be shown, and are named."""
    graph, secrets = plan.graph(), Secrets((*plan.secrets, *plan.engine_options.get("secret_headers", ())))
    source = source_of(options)
    count = _ROWS if options.limit is None else options.limit
    lines: list[str] = []
    for row in asyncio.run(_first(source.blocks(), count)):
        lines.append(f"row {row[0]}")
        lines += [f"  {line}" for line in _of_row(graph, row, secrets, coerce=source.coerce)]
    return lines or ["the input has no rows"]


async def _first(blocks: Any, count: int) -> list[Row]:
    rows: list[Row] = []
    async with closing(blocks) as opened:
        async for block in opened:
            rows += islice(block.rows, count - len(rows))
            if len(rows) >= count:
                break
    return rows


def _of_row(graph: Graph, row: Row, secrets: Secrets, *, coerce: bool) -> list[str]:
    _, raw, value = row
    if isinstance(value, BadRow):
        return [f"fails: {value.message}"]
    lines: list[str] = []
    known: dict[int, Any] = {}
    for node in graph.nodes:
        missing = [p.name for p in node.parameters if p.source != ROW and p.source not in known]
        if missing:
            lines.append(f"{node.step.name}: needs the answer of {', '.join(missing)}")
            continue
        try:
            packed = [
                pack_row(p, raw, value, coerce=coerce) if p.source == ROW else (known[p.source],)
                for p in node.parameters
            ]
            made = node.step.function(**unpack(node, packed))
        except (CallError, MisuseError) as error:
            return [*lines, f"{node.step.name}: fails: {error}"]
        except Exception as error:  # noqa: BLE001  the user's own code
            return [*lines, f"{node.step.name}: fails: {fault_of(error).message}"]
        if node.step.is_compute:
            known[node.number] = made
            lines.append(f"{node.step.name}: computed")
        else:
            lines += _made(node, made, secrets)
    return lines


def _made(node: Node, made: Any, secrets: Secrets) -> list[str]:
    if made is None:
        return [f"{node.step.name}: skipped"]
    requests = (
        made if isinstance(made, list | tuple) else list(made.values()) if isinstance(made, dict) else [made]
    )
    lines = []
    for request in requests:
        if not isinstance(request, Request):
            lines.append(f"{node.step.name}: fails: it returns a {type(request).__name__}, not a request")
            continue
        lines.append(f"{node.step.name}: {request.method} {secrets.url(request.url)}")
        for name, value in request.headers:
            lines.append(f"    {name}: {HIDDEN if secrets.has(name) else value}")
        if request.body is not None:
            lines.append(f"    {_body(request.body, secrets)}")
    return lines


def _body(body: bytes, secrets: Secrets) -> str:
    if secrets.are_named_in(body):
        return f"{HIDDEN} ({len(body):,} bytes with a secret in them)"
    text = body[:_BODY].decode("utf-8", "replace").replace("\n", "\\n")
    return text if len(body) <= _BODY else f"{text}… ({len(body):,} bytes)"
