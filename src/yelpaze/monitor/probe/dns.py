"""DNS checks: a question to a name server. A refusal or NXDOMAIN is an answer, for `[DNS_RCODE]`."""

import time
from collections.abc import Callable
from typing import Any

import aiodns
import pycares

from yelpaze.monitor.check import Check
from yelpaze.monitor.conditions import Answer
from yelpaze.monitor.config.servers import server_of
from yelpaze.monitor.probe.reply import Reply

_RCODES = {
    aiodns.error.ARES_ENODATA: "NOERROR",
    aiodns.error.ARES_ENOTFOUND: "NXDOMAIN",
    aiodns.error.ARES_ESERVFAIL: "SERVFAIL",
    aiodns.error.ARES_EREFUSED: "REFUSED",
    aiodns.error.ARES_ENOTIMP: "NOTIMP",
    aiodns.error.ARES_EFORMERR: "FORMERR",
}
_NO_SEARCH = 1 << 5


async def check_dns(
    check: Check,
    channels: dict[tuple[str, float], aiodns.DNSResolver],
    guarded: Callable[[tuple[str, ...]], tuple[str, ...]],
) -> Reply:
    """Ask the server in the check's URL. `channels` keeps one for each server. Raises CheckError."""
    options = check.options
    ip, port = server_of(check.url)
    guarded((ip,))
    key = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", options.timeout
    channel = channels.get(key)
    if channel is None:
        channel = channels[key] = aiodns.DNSResolver(
            [key[0]], timeout=options.timeout, tries=1, flags=_NO_SEARCH
        )
    began = time.monotonic()
    try:
        result: Any = await channel.query_dns(options.query_name, options.query_type)
    except aiodns.error.DNSError as error:
        duration = (time.monotonic() - began) * 1000
        rcode = _RCODES.get(error.args[0])
        if rcode is None:
            text = f"{key[0]} did not answer: {error.args[1] if len(error.args) > 1 else error}"
            return Reply(Answer(response_time=int(duration)), "dns", text, duration)
        answer = Answer(response_time=int(duration), connected=True, dns_rcode=rcode, ip=ip)
        return Reply(answer, "", "", duration)
    duration = (time.monotonic() - began) * 1000
    wanted = [one for one in result.answer if one.type == _type_of(options.query_type)]
    body = "\n".join(_text(one.data) for one in wanted)
    answer = Answer(
        response_time=int(duration), connected=True, dns_rcode="NOERROR", body=body.encode(), ip=ip
    )
    return Reply(answer, "", "", duration)


def _type_of(name: str) -> Any:
    return getattr(pycares, f"QUERY_TYPE_{name}")


def _text(data: Any) -> str:
    for name in ("addr", "cname", "exchange", "nsdname", "dname", "target", "data", "value", "mname"):
        found = getattr(data, name, None)
        if found is not None:
            text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
            return f"{text}:{data.port}" if name == "target" else text
    return str(data)
