"""Autobahn's cases for RFC 6455 against the plain WebSocket, whose channel says everything back.

Not asked are 1.2, 9.2, 9.4, 9.6 and 9.8 as they stand: binary messages are refused, which is tested; 12 and 13:
there is no compression; 9.3.1 to 9.3.3 and 9.4.1 to 9.4.3: a message has at most 1,024 fragments, which is tested too.
"""

import json
import subprocess
import sys

import pytest

from support.needed import needs

SECONDS = 100
LARGEST = 16 << 20  # of Autobahn's messages
MANY_FRAGMENTS = ["9.3.1", "9.3.2", "9.3.3", "9.4.1", "9.4.2", "9.4.3"]
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
# In a process of its own: the cases patch the standard library.
RUN = """
import asyncio, json, os, sys
from kosoku import FailureError, run_fuzzingclient

async def run(url, cases, without):
    try:
        return await run_fuzzingclient(url, cases=cases, exclude_cases=without or None)
    except FailureError as failure:
        return failure.results

async def main():
    runs = [run(*one) for one in json.loads(sys.argv[1])]
    for results in await asyncio.gather(*runs):
        for one in results:
            told = one.result, one.result_close
            verdicts = one.behavior.value, one.behavior_close.value
            print(json.dumps([one.case_id, verdicts, one.remote_close_code, told]))

asyncio.run(main())
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def gateway(gateways):
    needs("kosoku")
    client = {"insecure": True, "queue_max_size": 2 * LARGEST}
    # No pings of ours, which the cases do not expect.
    return gateways(
        {"client": client, "websocket": {"message_size_limit": LARGEST, "plain_ping_interval": "0s"}}
    )


def run(gateway, *groups):
    """Run groups of cases side by side: a channel each, so that they do not hear each other."""
    runs = [
        (f"{gateway.ws}/ws/group{number}", cases, without) for number, (cases, without) in enumerate(groups)
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(runs)], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return {case: rest for case, *rest in map(json.loads, done.stdout.splitlines())}


def test_all_cases_of_small_texts_pass(gateway):
    found = run(
        gateway,
        (["1.1.*", "2.*", "3.*", "4.*", "7.*", "10.*"], []),
        (["5.*"], []),
        (["6.*"], ["6.4.*"]),
        (["6.4.1", "6.4.2"], []),  # these wait for a second each
        (["6.4.3", "6.4.4"], []),
    )
    assert {case: rest for case, rest in found.items() if not PASSED.issuperset(rest[0])} == {}
    assert len(found) == 239


def test_all_cases_of_many_and_large_texts_pass(gateway):
    """Not beside the others: those wait for a second only, and 16 MB take a while."""
    found = run(gateway, (["9.1.*", "9.3.*", "9.5.*", "9.7.*"], MANY_FRAGMENTS))
    assert {case: rest for case, rest in found.items() if not PASSED.issuperset(rest[0])} == {}
    assert len(found) == 24


def test_binary_messages_are_refused(gateway):
    found = run(gateway, (["1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*"], MANY_FRAGMENTS))
    assert {case: code for case, (_, code, _) in found.items() if code != 1003} == {}
    assert len(found) == 32


def test_messages_of_very_many_fragments_are_refused(gateway):
    found = run(gateway, (MANY_FRAGMENTS, []))
    assert {case: code for case, (_, code, _) in found.items()} == dict.fromkeys(MANY_FRAGMENTS, 1009)
