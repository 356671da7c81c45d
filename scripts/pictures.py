"""Draw docs/policies/*.svg: what each policy does to traffic.

python scripts/pictures.py            draws them
python scripts/pictures.py --check    fails if one is not what the code does

The traffic is that of the real engine in simulated time against a simulated host, so the
pictures are the same in every run.
"""

import asyncio
import random
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.simulated import Answer, Simulation
from yelpaze import Breaker, Hedge, HostPolicy, Limit, Retry, get

TARGET = ROOT / "docs" / "policies"
URL = "http://10.0.0.1/"
REFUSED = 7
GOOD, BAD, INK, GRID = "#4878a8", "#c8553d", "#333333", "#d8d8d8"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 350, 200, 44, 46, 36

# A panel: its title, and for each step of x how many went well and how many did not.
Panel = tuple[str, list[tuple[int, int]]]


def nice(peak: int) -> int:
    """The next of 2, 4, 6, 8, 10, 20, 40, …"""
    unit = 1
    while True:
        for step in (2, 4, 6, 8):
            if step * unit >= peak:
                return step * unit
        unit *= 10


def draw(name: str, x_label: str, y_label: str, panels: list[Panel], *, step: float = 1.0) -> str:
    """Bars over time (or latency), one panel beside the other, on one scale."""
    peak = nice(max(good + bad for _, bars in panels for good, bad in bars))
    width = WIDTH * len(panels)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" role="img" aria-label="{name}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    room, floor = HEIGHT - TOP - BOTTOM, HEIGHT - BOTTOM
    for number, (title, bars) in enumerate(panels):
        x0 = number * WIDTH + LEFT
        span = WIDTH - LEFT - 12
        out.append(f'<text x="{x0}" y="18" font-size="12" font-weight="bold">{title}</text>')
        for share in (0, 0.5, 1):
            y = floor - room * share
            out.append(f'<line x1="{x0}" x2="{x0 + span}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
            out.append(f'<text x="{x0 - 5}" y="{y + 4:.1f}" text-anchor="end">{peak * share:g}</text>')
        wide = span / len(bars)
        for index, (good, bad) in enumerate(bars):
            y = float(floor)
            for count, colour in ((good, GOOD), (bad, BAD)):
                tall = room * count / peak
                y -= tall
                if count:
                    out.append(
                        f'<rect x="{x0 + index * wide + 0.5:.1f}" y="{y:.1f}" '
                        f'width="{max(wide - 1, 0.5):.1f}" '
                        f'height="{tall:.1f}" fill="{colour}"/>'
                    )
        for share in (0, 0.5, 1):
            x, label = x0 + span * share, f"{len(bars) * step * share:g}"
            out.append(f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{label}</text>')
        out.append(f'<text x="{x0 + span / 2:.1f}" y="{floor + 29}" text-anchor="middle">{x_label}</text>')
    out.append(f'<text x="12" y="33" font-size="10">{y_label}</text></svg>')
    return "\n".join(out) + "\n"


def over_time(ends: list[tuple[float, bool]], seconds: float, step: float = 1.0) -> list[tuple[int, int]]:
    bars = [[0, 0] for _ in range(int(seconds / step))]
    for when, good in ends:
        if 0 <= when < seconds:
            bars[min(int(when / step), len(bars) - 1)][not good] += 1
    return [(good, bad) for good, bad in bars]


def traffic(
    server: Callable, main: Callable, seconds: float, *, step: float = 1.0, **options: object
) -> list[tuple[int, int]]:
    """Run it, and count its attempts by when they ended, and how."""
    ends: list[tuple[float, bool]] = []
    sim = Simulation(
        server,
        on_attempt=lambda _, attempt, __: ends.append((sim.loop.now - 1000, attempt.error is None)),
        **options,
    )
    sim.run(main)
    return over_time(ends, seconds, step)


def steady(per_second: int, seconds: float, **options: object) -> Callable:
    """So many `send`s a second."""

    async def main(engine) -> None:
        async def one(number: int) -> None:
            await asyncio.sleep(number / per_second)
            await engine.send(get(URL, **options))

        await asyncio.gather(*(one(number) for number in range(int(per_second * seconds))))

    return main


def bulk(count: int) -> Callable:
    async def main(engine) -> None:
        async for _ in engine.stream(get(URL) for _ in range(count)):
            pass

    return main


def away(start: float, end: float) -> Callable:
    return lambda _, now: Answer(0, 0.01, code=REFUSED) if start <= now - 1000 < end else Answer(200, 0.05)


class _NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def retry() -> str:
    server = lambda _, now: Answer(503 if now - 1000 < 1 else 200, 0.01)  # noqa: E731
    policy = {
        "breaker": None,
        "budget": None,
        "retry": Retry(attempts=6, base=0.2),
        "per_host": 500,
        "concurrency": 500,
    }
    same = traffic(server, lambda e: steady(10_000, 0.03)(e), 4, step=0.1, rng=_NoJitter(1), **policy)
    ours = traffic(server, lambda e: steady(10_000, 0.03)(e), 4, step=0.1, **policy)
    panels = [("300 calls, pauses all the same", same), ("full jitter", ours)]
    return draw("retry with full jitter", "seconds", "attempts in 0.1 s", panels, step=0.1)


def budget() -> str:
    server = lambda _, now: Answer(503 if 5 <= now - 1000 < 20 else 200, 0.05)  # noqa: E731
    policy = {"breaker": None, "concurrency": 2000, "per_host": 2000}
    without = traffic(server, steady(300, 25), 25, budget=None, **policy)
    with_it = traffic(server, steady(300, 25), 25, **policy)
    return draw(
        "retry budget",
        "seconds",
        "attempts/s",
        [("3 attempts each, no budget", without), ("with a retry budget", with_it)],
    )


def breaker() -> str:
    policy = {"budget": None, "retry": None, "concurrency": 2000, "per_host": 2000}
    without = traffic(away(10, 50), steady(50, 90), 90, step=2, breaker=None, **policy)
    with_it = traffic(away(10, 50), steady(50, 90), 90, step=2, **policy)
    return draw(
        "breaker",
        "seconds",
        "attempts in 2 s",
        [("send, no breaker", without), ("with a breaker", with_it)],
        step=2,
    )


def parking() -> str:
    one_by_one = traffic(away(20, 80), bulk(12_000), 180, step=4, per_host=5, breaker=None, budget=None)
    parked = traffic(away(20, 80), bulk(12_000), 180, step=4, per_host=5)
    panels = [("12,000 calls, no breaker", one_by_one), ("parked while the host is away", parked)]
    return draw("parking", "seconds", "attempts in 4 s", panels, step=4)


def rate() -> str:
    server = lambda *_: Answer(200, 0.02)  # noqa: E731
    without = traffic(server, bulk(1500), 20, step=0.5, per_host=20)
    with_it = traffic(server, bulk(1500), 20, step=0.5, limit=Limit(concurrency=20, rate="100/s"))
    panels = [("1,500 calls, 20 at once", without), ("and 100/s", with_it)]
    return draw("rate", "seconds", "attempts in 0.5 s", panels, step=0.5)


def _quota_server(*, tells: bool) -> Callable:
    left = {"n": 50, "until": 5.0}

    def server(_url: str, now: float) -> Answer:
        while now - 1000 >= left["until"]:
            left.update(n=50, until=left["until"] + 5)
        left["n"] -= 1
        wait = int(-(-(left["until"] - (now - 1000)) // 1))
        if left["n"] < 0:
            return Answer(429, headers=f"Retry-After: {wait}\r\n" if tells else "")
        return Answer(200, 0.02, headers=f'RateLimit: "d";r={left["n"]};t={wait}\r\n' if tells else "")

    return server


def quota() -> str:
    policy = {"per_host": 5, "breaker": None, "budget": None, "retry": Retry(attempts=50, cap=1)}
    silent = traffic(_quota_server(tells=False), bulk(250), 25, step=0.5, **policy)
    told = traffic(_quota_server(tells=True), bulk(250), 25, step=0.5, **policy)
    panels = [("50 in 5 s are allowed, unsaid", silent), ("said by RateLimit, obeyed", told)]
    return draw("quota", "seconds", "attempts in 0.5 s", panels, step=0.5)


def adaptive() -> str:
    def run(**options: object) -> list[tuple[int, int]]:
        ends: list[float] = []

        def server(_url: str, now: float) -> Answer:
            ends[:] = [end for end in ends if end > now]
            if len(ends) >= 120:
                return Answer(503, 0.1)
            seconds = 0.02 + max(0, len(ends) - 40) * 0.002
            ends.append(now + seconds)
            return Answer(200, seconds)

        return traffic(
            server,
            bulk(20_000),
            20,
            step=0.5,
            concurrency=400,
            breaker=None,
            budget=None,
            retry=None,
            **options,
        )

    panels = [
        ("400 at once: the host sheds", run(per_host=400)),
        ('"auto": what the host bears', run(per_host="auto")),
    ]
    return draw("adaptive concurrency", "seconds", "attempts in 0.5 s", panels, step=0.5)


def hedge() -> str:
    def latencies(**options: object) -> list[tuple[int, int]]:
        count = [0]

        def server(_url: str, _now: float) -> Answer:
            count[0] += 1
            return Answer(200, 0.5 if count[0] % 50 == 0 else 0.02 + count[0] % 11 * 0.004)

        took: list[float] = []
        sim = Simulation(server, on_outcome=lambda outcome: took.append(outcome.elapsed), **options)
        sim.run(steady(200, 20))
        bars = [0] * 30
        for seconds in took:
            bars[min(int(seconds / 0.02), 29)] += 1
        # Few are slow: what counts is shown from 100 ms on.
        return [(0, number) if index >= 5 else (min(number, 60), 0) for index, number in enumerate(bars)]

    panels = [("2 % of answers take 500 ms", latencies()), ("with hedging", latencies(hedge=Hedge()))]
    return draw("hedging", "latency, ms (bars are cut at 60)", "calls of 4,000", panels, step=20)


def dedupe() -> str:
    async def herd(engine) -> None:
        for _ in range(10):
            await asyncio.gather(*(engine.send(get(URL)) for _ in range(50)))
            await asyncio.sleep(0.8)

    server = lambda *_: Answer(200, 0.2)  # noqa: E731
    without = traffic(server, herd, 10, step=0.25, per_host=100)
    with_it = traffic(server, herd, 10, step=0.25, per_host=100, dedupe=True)
    panels = [("50 ask for the same at once", without), ("they share one call", with_it)]
    return draw("de-duplication", "seconds", "attempts in 0.25 s", panels, step=0.25)


def deadline() -> str:
    def took(**options: object) -> list[tuple[int, int]]:
        outcomes: list = []
        draws = random.Random(3)

        def server(_url: str, _now: float) -> Answer:
            return Answer(500 if draws.random() < 0.3 else 200, draws.expovariate(1 / 0.3))

        sim = Simulation(server, breaker=None, on_outcome=outcomes.append)
        sim.run(steady(100, 10, **options))
        bars = [[0, 0] for _ in range(30)]
        for outcome in outcomes:
            bars[min(int(outcome.elapsed / 0.1), 29)][outcome.error is not None] += 1
        return [(good, bad) for good, bad in bars]

    panels = [("no deadline: retries take their time", took()), ("deadline=1", took(deadline=1))]
    return draw("deadline", "latency, s", "calls of 1,000", panels, step=0.1)


def share() -> str:
    def by_policy(part: float) -> list[tuple[int, int]]:
        hosts = {"10.0.0.1": HostPolicy(retry=None, breaker=Breaker(calls=5, pause=10), share=part)}
        return traffic(
            away(5, 12),
            steady(100, 20),
            20,
            hosts=hosts,
            budget=None,
            breaker=None,
            per_host=500,
            concurrency=500,
        )

    panels = [(f"stricter for {part:.0%}", by_policy(part)) for part in (0.1, 0.5, 1.0)]
    return draw("a share of the requests", "seconds", "attempts/s", panels)


PICTURES = {
    "deadline": deadline,
    "retry": retry,
    "budget": budget,
    "parking": parking,
    "rate": rate,
    "quota": quota,
    "adaptive": adaptive,
    "breaker": breaker,
    "hedge": hedge,
    "dedupe": dedupe,
    "share": share,
}


def main() -> int:
    old = []
    for name, picture in PICTURES.items():
        path, text = TARGET / f"{name}.svg", picture()
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            old.append(path.name)
    if old:
        print(f"docs/policies: {', '.join(old)} is old: run python scripts/pictures.py", file=sys.stderr)
    return int(bool(old))


if __name__ == "__main__":
    sys.exit(main())
