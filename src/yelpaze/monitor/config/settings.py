"""The settings of a monitor as they stand in files, with Gatus's names."""

from typing import Any, Literal

import msgspec

from yelpaze.config.values import Duration, Secret, Settings

# What Gatus has and we have not: what uses it is disabled, or it is ignored, and either is said.
UNSUPPORTED_CLIENT = ("proxy-url", "oauth2", "identity-aware-proxy", "tunnel", "store-cookies")
IGNORED = ("storage", "security", "remote", "tunneling", "concurrency", "announcements", "suites", "debug")
OTHER_PROVIDERS = frozenset(
    {
        "aws-ses", "clickup", "datadog", "gitea", "github", "gitlab", "googlechat", "gotify",
        "homeassistant", "ifttt", "ilert", "incident-io", "line", "matrix", "mattermost", "messagebird",
        "n8n", "newrelic", "opsgenie", "plivo", "pushover", "rocketchat", "sendgrid", "signal", "signl4",
        "splunk", "squadcast", "twilio", "vonage", "webex", "zapier", "zulip",
    }
)  # fmt: skip


class _Kebab(Settings, frozen=True, rename="kebab"):
    """Names as Gatus writes them."""


class TlsSettings(_Kebab, frozen=True):
    """The client's certificate, and the authorities that are trusted; PEM files."""

    certificate_file: str = ""
    private_key_file: str = ""
    ca_file: str = ""
    renegotiation: str = ""


class ClientSettings(_Kebab, frozen=True):
    """How a check connects. `network`: ip, ip4 or ip6."""

    timeout: Duration = Duration(10)
    insecure: bool = False
    ignore_redirect: bool = False
    dns_resolver: str = ""
    network: Literal["ip", "ip4", "ip6"] = "ip"
    tls: TlsSettings = TlsSettings()
    proxy_url: Any = None
    oauth2: Any = None
    identity_aware_proxy: Any = None
    tunnel: Any = None
    store_cookies: Any = None


class AlertSettings(_Kebab, frozen=True):
    """An alert of an endpoint; what is not given comes from the provider's `default-alert`."""

    type: str = ""
    enabled: bool | None = None
    failure_threshold: int | None = None
    success_threshold: int | None = None
    minimum_reminder_interval: Duration | None = None
    send_on_resolved: bool | None = None
    description: str | None = None
    provider_override: Any = None


class DnsSettings(_Kebab, frozen=True):
    """A question to a name server; the endpoint's URL is its address."""

    query_type: str = "A"
    query_name: str = ""


class WindowSettings(_Kebab, frozen=True):
    """A maintenance window: `start` as hh:mm, on the days `every` names, or daily."""

    enabled: bool = True
    start: str = ""
    duration: Duration = Duration(0)
    timezone: str = "UTC"
    every: tuple[str, ...] = ()


class EndpointUi(_Kebab, frozen=True):
    """What pages and alarms do not show."""

    hide_conditions: bool = False
    hide_hostname: bool = False
    hide_url: bool = False
    hide_port: bool = False
    hide_errors: bool = False
    dont_resolve_failed_conditions: bool = False
    resolve_successful_conditions: bool = False
    badge: Any = None


class EndpointSettings(_Kebab, frozen=True):
    """An endpoint to check.

    Beside Gatus's fields: `locations`, where it is checked from (all by default); `quorum`, how many of them
    must fail, as a number or a percentage; `parents`, keys of endpoints whose failure explains this one's;
    `retries`, how often a failure is checked again at once.
    """

    name: str = ""
    group: str = ""
    enabled: bool = True
    url: str = ""
    method: str = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""
    graphql: bool = False
    interval: Duration | None = None
    conditions: tuple[str, ...] = ()
    alerts: tuple[AlertSettings, ...] = ()
    client: ClientSettings | None = None
    dns: DnsSettings | None = None
    ssh: Any = None
    ui: EndpointUi = EndpointUi()
    maintenance_windows: tuple[WindowSettings, ...] = ()
    extra_labels: dict[str, str] = msgspec.field(default_factory=dict)
    store: Any = None
    always_run: Any = None
    locations: tuple[str, ...] | None = None
    quorum: int | str | None = None
    parents: tuple[str, ...] = ()
    retries: int | None = None


class Heartbeat(_Kebab, frozen=True):
    """The longest silence of a push check; 0 is none."""

    interval: Duration = Duration(0)


class ExternalSettings(_Kebab, frozen=True):
    """A push check: the job calls us, and its silence is a failure."""

    name: str = ""
    group: str = ""
    enabled: bool = True
    token: Secret = Secret()
    alerts: tuple[AlertSettings, ...] = ()
    heartbeat: Heartbeat = Heartbeat()
    maintenance_windows: tuple[WindowSettings, ...] = ()
    extra_labels: dict[str, str] = msgspec.field(default_factory=dict)
    parents: tuple[str, ...] = ()


class TargetsSettings(EndpointSettings, frozen=True):
    """Many endpoints from a file: CSV with a header, or JSON Lines; the other fields are for all of them."""

    file: str = ""


class DefaultSettings(_Kebab, frozen=True):
    """What holds for endpoints that say nothing else."""

    interval: Duration = Duration(60)
    conditions: tuple[str, ...] = ()
    alerts: tuple[AlertSettings, ...] = ()
    client: ClientSettings = ClientSettings()
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    locations: tuple[str, ...] = ()
    quorum: int | str | None = None
    retries: int = 1


class RouteSettings(Settings, frozen=True):
    """Grouping of alarms, as in Alertmanager: by `group`, `name`, or a label; empty: each on its own."""

    group_by: tuple[str, ...] = ()
    group_wait: Duration = Duration(0)
    group_interval: Duration = Duration(300)


class CheckerSettings(_Kebab, frozen=True):
    """A TCP address, `host:port`; while it cannot be reached, the location itself is offline."""

    target: str = ""
    interval: Duration = Duration(60)


class ConnectivitySettings(_Kebab, frozen=True):
    """How a location finds out that it is offline, beside finding that everything fails."""

    checker: CheckerSettings = CheckerSettings()


class WebSettings(_Kebab, frozen=True):
    """Where the pages and the API are served."""

    address: str = "127.0.0.1"
    port: int = 8080
    read_buffer_size: Any = None
    tls: Any = None


class UiSettings(_Kebab, frozen=True):
    """Texts of the status page."""

    title: str = "Status"
    header: str = "Status"
    description: str = ""
    dashboard_heading: str = ""
    dashboard_subheading: str = ""
    logo: Any = None
    link: Any = None
    favicon: Any = None
    buttons: Any = None
    custom_css: Any = None
    dark_mode: Any = None
    default_sort_by: Any = None
    default_filter_by: Any = None
    login_subtitle: Any = None


class RetentionSettings(Settings, frozen=True):
    """How long results, and their sums by minute, hour and day, are kept."""

    results: Duration = Duration(7 * 86_400)
    minutes: Duration = Duration(14 * 86_400)
    hours: Duration = Duration(120 * 86_400)
    days: Duration = Duration(5 * 365 * 86_400)


class ApiSettings(Settings, frozen=True):
    """`token` allows commands (acknowledge, silence, maintenance); `read_token` guards reading too."""

    token: Secret = Secret()
    read_token: Secret = Secret()
    show_urls: bool = False


class MonitorSettings(_Kebab, frozen=True):
    """A monitor's settings."""

    endpoints: tuple[EndpointSettings, ...] = ()
    external_endpoints: tuple[ExternalSettings, ...] = ()
    targets: tuple[TargetsSettings, ...] = ()
    defaults: DefaultSettings = DefaultSettings()
    alerting: dict[str, Any] = msgspec.field(default_factory=dict)
    route: RouteSettings = RouteSettings()
    maintenance: WindowSettings | None = None
    locations: tuple[str, ...] = ("local",)
    connectivity: ConnectivitySettings = ConnectivitySettings()
    retention: RetentionSettings = RetentionSettings()
    api: ApiSettings = ApiSettings()
    web: WebSettings = WebSettings()
    ui: UiSettings = UiSettings()
    metrics: bool = True
    allow: tuple[str, ...] | None = None
    skip_invalid_config_update: Any = None
    disable_monitoring_lock: Any = None
    storage: Any = None
    security: Any = None
    remote: Any = None
    tunneling: Any = None
    concurrency: Any = None
    announcements: Any = None
    suites: Any = None
    debug: Any = None


class ProviderSettings(_Kebab, frozen=True):
    """A channel's settings, whatever it is; each provider reads its own."""

    default_alert: AlertSettings | None = None
    overrides: tuple[dict[str, Any], ...] = ()
    group_wait: Duration | None = None


def is_set(value: object) -> bool:
    """Whether a setting that is not built was given."""
    return value is not None and value is not msgspec.UNSET
