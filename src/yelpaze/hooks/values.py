"""Values of the API, in Svix's shapes: names in camelCase, times in RFC 3339.

    application ──has──→ endpoints ──match──→ messages ──are delivered in──→ attempts

Svix has renamed two fields: `filterTypes` is `eventTypes` now, and `rateLimit` is `throttleRate`. Both are
taken, and both are given.
"""

from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class _In(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class _Out(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class MessageStatus(IntEnum):
    """The state of a delivery; Svix's numbers."""

    SUCCESS = 0
    PENDING = 1
    FAIL = 2
    SENDING = 3
    CANCELED = 4


class Trigger(IntEnum):
    """The trigger of an attempt."""

    SCHEDULED = 0
    MANUAL = 1


class ApplicationIn(_In, frozen=True, kw_only=True):
    """A customer of the sender: it owns endpoints, and messages are sent to it."""

    name: str
    uid: str | None = None
    rate_limit: int | None = None
    throttle_rate: int | None = None
    metadata: dict[str, str] = {}


class ApplicationPatch(_In, frozen=True, kw_only=True):
    """Fields to change; the others stay."""

    name: str | UnsetType = UNSET
    uid: str | UnsetType | None = UNSET
    rate_limit: int | UnsetType | None = UNSET
    throttle_rate: int | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType = UNSET


class ApplicationOut(_Out, frozen=True, kw_only=True):
    """An application as it is kept."""

    id: str
    uid: str | None
    name: str
    rate_limit: int | None
    throttle_rate: int | None
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime


class EndpointTls(_In, frozen=True, kw_only=True):
    """TLS settings of an endpoint, all in PEM; `insecure` accepts any certificate."""

    ca: str = ""
    client_cert: str = ""
    client_key: str = ""
    insecure: bool = False


class EndpointIn(_In, frozen=True, kw_only=True):
    """Where messages go.

    Beside Svix's fields: `kind` and its `options`; `timeout` in seconds; `concurrency`, attempts at once;
    `fifo`, one message after the other; `schedule`, seconds before each attempt; `tls`; `paused`.
    """

    url: str = ""
    kind: str = "webhook"
    options: dict[str, Any] = {}
    description: str = ""
    uid: str | None = None
    version: int | None = None
    disabled: bool = False
    paused: bool = False
    filter_types: tuple[str, ...] | None = None
    event_types: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    metadata: dict[str, str] = {}
    headers: dict[str, str] | None = None
    secret: str | None = None
    rate_limit: int | None = None
    throttle_rate: int | None = None
    timeout: float | None = None
    concurrency: int | None = None
    fifo: bool = False
    schedule: tuple[float, ...] | None = None
    tls: EndpointTls | None = None


class EndpointPatch(_In, frozen=True, kw_only=True):
    """Fields to change; the others stay."""

    url: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    description: str | UnsetType = UNSET
    uid: str | UnsetType | None = UNSET
    version: int | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    paused: bool | UnsetType = UNSET
    filter_types: tuple[str, ...] | UnsetType | None = UNSET
    event_types: tuple[str, ...] | UnsetType | None = UNSET
    channels: tuple[str, ...] | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    rate_limit: int | UnsetType | None = UNSET
    throttle_rate: int | UnsetType | None = UNSET
    timeout: float | UnsetType | None = UNSET
    concurrency: int | UnsetType | None = UNSET
    fifo: bool | UnsetType = UNSET
    schedule: tuple[float, ...] | UnsetType | None = UNSET
    tls: EndpointTls | UnsetType | None = UNSET


class EndpointOut(_Out, frozen=True, kw_only=True):
    """An endpoint as it is kept. Secret values of `options` are not shown."""

    id: str
    uid: str | None
    url: str
    kind: str
    options: dict[str, Any]
    description: str
    version: int
    disabled: bool
    disabled_reason: str
    paused: bool
    filter_types: tuple[str, ...] | None
    event_types: tuple[str, ...] | None
    channels: tuple[str, ...] | None
    metadata: dict[str, str]
    rate_limit: int | None
    throttle_rate: int | None
    timeout: float
    concurrency: int
    fifo: bool
    schedule: tuple[float, ...] | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


class EndpointSecretOut(_Out, frozen=True, kw_only=True):
    """The secret with which an endpoint's messages are signed."""

    key: str


class EndpointSecretRotateIn(_In, frozen=True, kw_only=True):
    """The next secret, by default a new one; both hold for `grace_period_seconds`."""

    key: str | None = None
    grace_period_seconds: int | None = None


class EndpointHeadersIn(_In, frozen=True, kw_only=True):
    """Headers that every request to the endpoint has."""

    headers: dict[str, str]


class EndpointHeadersPatchIn(_In, frozen=True, kw_only=True):
    """Headers to set, and to delete."""

    headers: dict[str, str] = {}
    delete_headers: tuple[str, ...] = ()


class EndpointHeadersOut(_Out, frozen=True, kw_only=True):
    """Headers, without those whose values are secret; these are named in `sensitive`."""

    headers: dict[str, str]
    sensitive: tuple[str, ...]


class EndpointStats(_Out, frozen=True, kw_only=True):
    """Counts of an endpoint's deliveries by state."""

    success: int = 0
    pending: int = 0
    sending: int = 0
    fail: int = 0
    canceled: int = 0


class RecoverIn(_In, frozen=True, kw_only=True):
    """A time to go back to. `until` is now by default."""

    since: datetime
    until: datetime | None = None


class TaskOut(_Out, frozen=True, kw_only=True):
    """A finished task."""

    id: str
    status: str
    task: str
    updated_at: datetime


class EventTypeIn(_In, frozen=True, kw_only=True):
    """A kind of event that messages can be of."""

    name: str
    description: str = ""
    archived: bool = False
    deprecated: bool = False
    schemas: dict[str, Any] | None = None
    group_name: str | None = None
    feature_flag: str | None = None
    feature_flags: tuple[str, ...] | None = None


class EventTypeUpdate(_In, frozen=True, kw_only=True):
    """An event type under a name that is given elsewhere."""

    description: str = ""
    archived: bool = False
    deprecated: bool = False
    schemas: dict[str, Any] | None = None
    group_name: str | None = None
    feature_flag: str | None = None
    feature_flags: tuple[str, ...] | None = None


class EventTypePatch(_In, frozen=True, kw_only=True):
    """Fields to change; the others stay."""

    description: str | UnsetType = UNSET
    archived: bool | UnsetType = UNSET
    deprecated: bool | UnsetType = UNSET
    schemas: dict[str, Any] | UnsetType | None = UNSET
    group_name: str | UnsetType | None = UNSET
    feature_flag: str | UnsetType | None = UNSET
    feature_flags: tuple[str, ...] | UnsetType | None = UNSET


class EventTypeOut(_Out, frozen=True, kw_only=True):
    """An event type as it is kept."""

    name: str
    description: str
    archived: bool
    deprecated: bool
    schemas: dict[str, Any] | None
    group_name: str | None
    feature_flag: str | None
    feature_flags: tuple[str, ...] | None
    created_at: datetime
    updated_at: datetime


class MessageIn(_In, frozen=True, kw_only=True):
    """An event to deliver to all endpoints of an application that match it.

    Beside Svix's fields: `order_key`, under which a later message takes the place of an undelivered earlier
    one; `expires_at`, after which it is not attempted any more; `schedule`, "alarm" for that of alarms.
    """

    event_type: str
    payload: msgspec.Raw
    event_id: str | None = None
    channels: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    application: ApplicationIn | None = None
    payload_retention_period: int | None = None
    payload_retention_hours: int | None = None
    deliver_at: datetime | None = None
    transformations_params: dict[str, Any] | None = None
    order_key: str | None = None
    expires_at: datetime | None = None
    schedule: str | None = None


class MessageOut(_Out, frozen=True, kw_only=True):
    """A message as it is kept. Without its content, `payload` is an empty object."""

    id: str
    event_id: str | None
    event_type: str
    payload: msgspec.Raw
    channels: tuple[str, ...] | None
    tags: tuple[str, ...] | None
    timestamp: datetime
    deliver_at: datetime | None
    order_key: str | None
    expires_at: datetime | None


class EndpointMessageOut(MessageOut, frozen=True, kw_only=True):
    """A message as an endpoint got it, or not yet."""

    status: MessageStatus
    status_text: str
    next_attempt: datetime | None


class MessageEndpointOut(_Out, frozen=True, kw_only=True):
    """An endpoint to which a message goes."""

    id: str
    uid: str | None
    url: str
    description: str
    disabled: bool
    filter_types: tuple[str, ...] | None
    event_types: tuple[str, ...] | None
    channels: tuple[str, ...] | None
    rate_limit: int | None
    throttle_rate: int | None
    version: int
    status: MessageStatus
    status_text: str
    next_attempt: datetime | None
    created_at: datetime
    updated_at: datetime


class AttemptOut(_Out, frozen=True, kw_only=True):
    """One attempt to deliver a message.

    Beside Svix's fields: `reason`, why it failed; `phases` in milliseconds; `next_attempt`; `number`.
    """

    id: str
    msg_id: str
    endpoint_id: str
    event_type: str
    url: str
    response: str
    response_status_code: int
    response_duration_ms: int
    status: MessageStatus
    status_text: str
    trigger_type: Trigger
    timestamp: datetime
    number: int
    reason: str
    phases: dict[str, float]
    next_attempt: datetime | None
    msg: MessageOut | None = None


class TokenIn(_In, frozen=True, kw_only=True):
    """A token: for one application, or without one for all. `expires_in` is in seconds."""

    application_id: str | None = None
    name: str = ""
    expires_in: int | None = None


class TokenOut(_Out, frozen=True, kw_only=True):
    """A token. `token` itself is shown once, when it is made."""

    id: str
    name: str
    application_id: str | None
    created_at: datetime
    expires_at: datetime | None
    token: str | None = None


class ExampleIn(_In, frozen=True, kw_only=True):
    """A test event for one endpoint; `payload` is by default an example of the event type's schema."""

    event_type: str
    payload: msgspec.Raw | None = None
    example_index: int | None = None


class Page(_Out, frozen=True, kw_only=True):
    """A part of a list. `iterator` asks for the next one, unless `done`."""

    data: list[Any]
    iterator: str | None
    prev_iterator: str | None
    done: bool
