"""`yelpaze monitor once`: each check once, as a table or as JSON."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from yelpaze.cli.exits import Exit
from yelpaze.cli.table import print_table
from yelpaze.model.notice import Notice
from yelpaze.monitor.check import Check
from yelpaze.monitor.config.loading import load_monitor
from yelpaze.monitor.probe.checker import Verdict, check_once

_PHASES = ("dns", "connect", "tls", "firstByte")


def make_once(files: list[Path], *, as_json: bool, concurrency: int) -> int:
    """Check everything once and print it. Raises InputError."""
    config = load_monitor(files)
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    checks = [one for one in config.enabled() if one.options.kind != "push"]
    verdicts = asyncio.run(check_once(checks, concurrency, config.allow, _report))
    pairs = list(zip(checks, verdicts, strict=True))
    if as_json:
        click.echo(msgspec.json.encode([_value(*pair) for pair in pairs]).decode())
    else:
        heads = ["", "ENDPOINT", "STATUS", "TIME", "WHAT FAILED"]
        print_table([heads, *(_row(*pair) for pair in pairs)])
    return Exit.OK if all(one.success for one in verdicts) else Exit.SOME_FAILED


def _report(notice: Notice) -> None:
    click.echo(str(notice), err=True)


def _value(check: Check, verdict: Verdict) -> dict[str, Any]:
    reply = verdict.reply
    timings = dict(zip(_PHASES, reply.timings, strict=True)) if reply.timings is not None else {}
    return {
        "name": check.name,
        "group": check.group,
        "success": verdict.success,
        "status": reply.answer.status,
        "conditions": [{"condition": one.text, "success": one.success} for one in verdict.conditions],
        "timings": {**timings, "total": round(reply.duration, 3)},
        "error": reply.message or None,
    }


def _row(check: Check, verdict: Verdict) -> list[str]:
    reply = verdict.reply
    failed = reply.message or "; ".join(one.text for one in verdict.conditions if not one.success)
    return [
        "ok" if verdict.success else "FAILED",
        check.title,
        str(reply.answer.status or ""),
        f"{reply.duration:.0f} ms",
        "" if verdict.success else failed,
    ]
