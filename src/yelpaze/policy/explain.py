"""What holds for a host, in words."""

from yelpaze.policy.host import Policy


def explained(policy: Policy) -> list[tuple[str, str]]:
    """Each policy's name, and what it does."""
    return [
        ("timeout", _timeout(policy)),
        ("deadline", "none" if policy.deadline is None else f"{policy.deadline:g} s for a whole call"),
        ("retry", _retry(policy)),
        ("budget", _budget(policy)),
        ("limit", _limit(policy)),
        ("breaker", _breaker(policy)),
        ("hedge", _hedge(policy)),
        *([] if policy.pauses else [("pauses", "off: Retry-After and quota fields delay one call only")]),
    ]


def _timeout(policy: Policy) -> str:
    timeout = policy.timeout
    return (
        f"connect {timeout.connect:g} s, first byte {timeout.first_byte:g} s, attempt {timeout.attempt:g} s"
    )


def _retry(policy: Policy) -> str:
    retry = policy.retry
    if retry is None or retry.attempts == 1:
        return "off"
    statuses = ", ".join(map(str, sorted(retry.statuses))) or "no status"
    text = (
        f"{retry.attempts} attempts, pauses up to {retry.base:g} s · 2ⁿ, {retry.cap:g} s at most; {statuses}"
    )
    return text if retry.max_time == float("inf") else f"{text}; none begun after {retry.max_time:g} s"


def _budget(policy: Policy) -> str:
    budget = policy.budget
    if budget is None:
        return "off"
    return f"retries up to {budget.share:.0%} of requests and {budget.per_second:g}/s, over {budget.ttl:g} s"


def _limit(policy: Policy) -> str:
    limit = policy.limit
    at_once = "as many at once as it bears" if limit.concurrency == "auto" else f"{limit.concurrency} at once"
    if limit.pace is None:
        return at_once
    return f"{at_once}, {limit.pace} with a burst of {limit.burst}"


def _breaker(policy: Policy) -> str:
    breaker = policy.breaker
    if breaker is None:
        return "off"
    return (
        f"opens at {breaker.share:.0%} of {breaker.calls} calls in {breaker.window:g} s, or "
        f"{breaker.calls} failures in a row; {breaker.probes} probes after {breaker.pause:g} s"
    )


def _hedge(policy: Policy) -> str:
    hedge = policy.hedge
    if hedge is None:
        return "off"
    after = f"the host's p{hedge.quantile * 100:g}" if hedge.after is None else f"{hedge.after:g} s"
    return f"asks again after {after}, up to {hedge.share:.0%} more requests"
