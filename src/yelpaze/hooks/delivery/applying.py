"""Applies an endpoint's stored settings and state to its queue in memory."""

from yelpaze.hooks.delivery.queue import EndpointQueue
from yelpaze.hooks.kinds.email import completed
from yelpaze.hooks.kinds.protocol import Secret
from yelpaze.hooks.kinds.registry import builder_of, kind_of
from yelpaze.hooks.log.endpoints import Endpoint
from yelpaze.hooks.settings import HooksSettings
from yelpaze.hooks.tls_files import TlsFiles
from yelpaze.policy.breaker import Breaker, BreakerState
from yelpaze.policy.schedule import Schedule


def apply_settings(
    queue: EndpointQueue,
    endpoint: Endpoint,
    secrets: tuple[Secret, ...],
    own: HooksSettings,
    tls: TlsFiles,
) -> None:
    """Its settings. Raises YelpazeError for what cannot be used."""
    settings = completed(endpoint.settings, own.smtp)
    queue.app_id = endpoint.app_id
    queue.settings = settings
    queue.builder = builder_of(settings, secrets)
    queue.tls = tls.of(settings.tls)
    queue.concurrency = 1 if settings.fifo else settings.concurrency or own.endpoint_concurrency
    queue.timeout = float(settings.timeout or own.timeout)
    queue.set_rate(settings.rate)
    queue.schedule = (
        None if settings.schedule is None else Schedule(settings.schedule, own.jitter, own.retry_after_cap)
    )


def apply_state(queue: EndpointQueue, endpoint: Endpoint, breaker: Breaker, clock: float) -> None:
    """Its state, where that is newer than what is in memory and perhaps not written yet."""
    is_new, was_idle = queue.kind is None, queue.is_idle
    queue.kind = kind_of(queue.settings)
    queue.is_idle = endpoint.paused or endpoint.disabled or queue.is_disabled
    if queue.is_idle:
        queue.forget_ready()
        queue.more_at = 0
    is_enabled_again = was_idle and not queue.is_idle and endpoint.failures == 0
    if is_new or is_enabled_again:
        queue.breaker = BreakerState(breaker)
        if endpoint.failures >= breaker.calls:
            queue.breaker.trip(clock - breaker.pause)  # it is probed first
        queue.failures, queue.failing_since = endpoint.failures, endpoint.failing_since
        queue.warned, queue.blocked_until = endpoint.warned, endpoint.blocked_until
