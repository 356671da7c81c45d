"""The demo services' faults are as many as asked for, and the same every time."""

from yelpaze.demo.faults import FAULTS, Faults, RateLimit


def drawn(rate: float, seed: int, repeats: int = 1) -> list:
    faults = Faults(rate, FAULTS, seed)
    return [faults.draw("/x", str(n).encode()) for n in range(20_000) for _ in range(repeats)]


def test_the_rate_is_met_and_the_seed_decides():
    first = drawn(0.05, seed=1)
    assert 800 < sum(fault is not None for fault in first) < 1200
    assert set(first) == {None, *FAULTS}
    assert first == drawn(0.05, seed=1)
    assert first != drawn(0.05, seed=2)
    assert not any(drawn(0, seed=1))
    assert all(drawn(1, seed=1))


def test_a_retry_is_drawn_anew():
    pairs = drawn(0.2, seed=3, repeats=2)
    firsts, seconds = pairs[::2], pairs[1::2]
    again = sum(a is not None and b is not None for a, b in zip(firsts, seconds, strict=True))
    assert 600 < again < 1000  # 0.2 · 0.2 · 20,000


def test_the_rate_limit_counts_seconds_of_the_clock():
    limit = RateLimit(3)
    assert [limit.retry_after(10.1) for _ in range(5)] == [0, 0, 0, 1, 1]
    assert limit.retry_after(11.0) == 0
    assert RateLimit(0).retry_after(1.0) == 0
