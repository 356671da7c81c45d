"""Each decision by itself, in µs."""

import json
import random
import timeit

from yelpaze.model.errors import Error, ErrorKind
from yelpaze.model.headers import Headers
from yelpaze.model.histogram import Histogram
from yelpaze.policy.adaptive import Adaptive
from yelpaze.policy.breaker import Breaker, BreakerState
from yelpaze.policy.budget import Budget, BudgetState
from yelpaze.policy.hedge import Hedge, HedgeState
from yelpaze.policy.quota import read_quota
from yelpaze.policy.rate import Gcra, Rate
from yelpaze.policy.retry import Retry, pause, worth_retrying
from yelpaze.policy.slots import HostQueue, Slots

slots = Slots(total=100)
queue = HostQueue(64)
paced = HostQueue(64, Gcra(Rate.parse("1000000000/s"), 1000))
breaker, budget, hedge = BreakerState(Breaker()), BudgetState(Budget()), HedgeState(Hedge())
adaptive, histogram = Adaptive(64), Histogram()
policy, error = Retry(), Error(ErrorKind.STATUS, "503")
headers = Headers(b'HTTP/1.1 200 OK\r\nRateLimit: "d";r=50;t=30\r\nRateLimit-Policy: "d";q=100;w=60\r\n\r\n')
uniform = random.Random(1).uniform


def slot() -> None:
    slots.take(queue, 1.0)
    slots.give(queue, 1.0)


def slot_with_rate() -> None:
    slots.take(paced, 1.0)
    paced.blocked_until = 0.0
    slots.give(paced, 1.0)


def retry() -> None:
    worth_retrying(policy, replayable=True, keyed=False, status=503, error=error)
    pause(policy, attempt=1, retry_after=None, uniform=uniform)


PARTS = {
    "slot, taken and given": slot,
    "slot with a rate": slot_with_rate,
    "breaker, a success": lambda: breaker.record(1.0, True, 0),
    "latency histogram": lambda: histogram.add(0.012),
    "hedge bookkeeping": lambda: hedge.answered(0.012),
    "adaptive limit": lambda: adaptive.sample(0.012, 30),
    "retry, decision and pause": retry,
    "budget, a retry paid": lambda: budget.withdraw(1.0),
    "RateLimit fields read": lambda: read_quota(Headers(headers.raw), wall=0.0),
}
COUNT = 50_000
print(
    json.dumps(
        {name: min(timeit.repeat(part, number=COUNT, repeat=5)) / COUNT * 1e6 for name, part in PARTS.items()}
    )
)
