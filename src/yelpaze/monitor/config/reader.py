"""Settings to checks: everything is checked here, and every mistake has its path."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from yelpaze.config.convert import Mistake, convert
from yelpaze.model.errors import MisuseError
from yelpaze.model.request import check_headers, get, request
from yelpaze.monitor import conditions
from yelpaze.monitor.check import DAYS, Alert, Check, CheckOptions, Kind, Window, id_of, key_of
from yelpaze.monitor.config.model import MonitorConfig
from yelpaze.monitor.config.providers import NAMES, Channel, Provider, merged_alert, read_provider
from yelpaze.monitor.config.servers import server_of
from yelpaze.monitor.config.settings import (
    IGNORED,
    OTHER_PROVIDERS,
    UNSUPPORTED_CLIENT,
    AlertSettings,
    ClientSettings,
    EndpointSettings,
    ExternalSettings,
    MonitorSettings,
    TargetsSettings,
    WindowSettings,
    is_set,
)
from yelpaze.monitor.config.targets import read_targets
from yelpaze.monitor.config.texts import as_text, with_texts
from yelpaze.policy.address_guard import AddressGuard

_SCHEMES: dict[str, Kind] = {
    "http": "http",
    "https": "http",
    "tcp": "tcp",
    "udp": "udp",
    "tls": "tls",
    "starttls": "starttls",
    "icmp": "icmp",
    "grpc": "grpc",
    "grpcs": "grpc",
}
_NOT_BUILT = {"ssh": "SSH", "ws": "WebSocket", "wss": "WebSocket", "sctp": "SCTP"}
_SHORTEST = 1.0
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_HOST_PORT = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})")
_QUERY_TYPES = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT", "CAA", "SOA")
_PERCENT = re.compile(r"(\d{1,3})%")
_MOST_SHOWN = 50
_LEAST_REMINDER = 300.0
_MOST_PORT = 65_535
_MOST_RETRIES = 10


class _Wrong(Exception):  # noqa: N818  never leaves this file
    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path
        self.text = text


class _Unsupported(Exception):  # noqa: N818  likewise
    """The check uses something that is not built."""


class Reader:
    """Settings to checks; collects mistakes and warnings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mistakes: list[Mistake] = []
        self.warnings: list[str] = []
        self._providers: dict[str, Provider] = {}
        self._channels: dict[str, Channel] = {}
        self._checks: dict[str, Check] = {}
        self._places: dict[str, str] = {}
        self._shared: dict[CheckOptions, CheckOptions] = {}
        self._settings = MonitorSettings()

    def read(self, settings: MonitorSettings) -> MonitorConfig:
        self._settings = settings
        self._ignored(settings)
        self._alerting(settings.alerting)
        windows: tuple[Window, ...] = ()
        if settings.maintenance is not None:
            windows = self._windows((settings.maintenance,), "maintenance", is_list=False)
        self._places_of(settings)
        tokens: dict[str, str] = {}
        for number, endpoint in enumerate(settings.endpoints):
            self._endpoint(endpoint, f"endpoints[{number}]")
        for number, external in enumerate(settings.external_endpoints):
            key = self._external(external, f"external-endpoints[{number}]")
            if key is not None:
                tokens[key] = str(external.token)
        for number, targets in enumerate(settings.targets):
            self._targets(targets, f"targets[{number}]")
        if not self._checks and not self.mistakes:
            self._wrong("", "there is nothing to check: give endpoints, external-endpoints or targets")
        self._parents()
        self._route(settings)
        return MonitorConfig(
            checks=self._checks,
            channels=self._channels,
            push_tokens=tokens,
            locations=settings.locations,
            windows=windows,
            route=settings.route,
            connectivity=settings.connectivity,
            retention=settings.retention,
            api=settings.api,
            web=settings.web,
            ui=settings.ui,
            allow=settings.allow,
            metrics=settings.metrics,
            warnings=tuple(self.warnings),
            hash="",
        )

    def _places_of(self, settings: MonitorSettings) -> None:
        """Locations, networks, ports."""
        try:
            self._locations(settings.locations, "locations")
        except _Wrong as fault:
            self._wrong(fault.path, fault.text)
        if not settings.locations:
            self._wrong("locations", "takes at least one name")
        if not 0 <= settings.web.port <= _MOST_PORT:
            self._wrong("web.port", f"takes a port, 0 to {_MOST_PORT}")
        try:
            AddressGuard(settings.allow or ())
        except MisuseError as error:
            self._wrong("allow", str(error).partition(") ")[2])

    def _wrong(self, path: str, text: str) -> None:
        self.mistakes.append(Mistake(path, text))

    def _ignored(self, settings: MonitorSettings) -> None:
        for name in IGNORED:
            if is_set(getattr(settings, name)):
                self.warnings.append(f"{name}: is not built, and ignored")
        target = settings.connectivity.checker.target
        if target and not _HOST_PORT.fullmatch(target):
            self._wrong("connectivity.checker.target", f"takes host:port: {target!r}")

    # ── alerting ────────────────────────────────────────────────────────────────

    def _alerting(self, alerting: Mapping[str, Any]) -> None:
        for name, section in alerting.items():
            if name in OTHER_PROVIDERS and name not in NAMES:
                self.warnings.append(f"alerting.{name}: is not built: alerts of this type are not sent")
                continue
            if name not in NAMES:
                near = get_close_matches(name, NAMES, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
                self._wrong(f"alerting.{name}", f"there is no such provider; {hint}")
                continue
            for found in read_provider(name, section):
                if isinstance(found, Mistake):
                    self._wrong(f"alerting.{name}.{found.path}".strip("."), found.text)
                else:
                    self._providers[name] = found
                    self._channels |= {channel.uid: channel for channel in found.channels.values()}

    def _alerts(self, given: tuple[AlertSettings, ...], group: str, path: str) -> tuple[Alert, ...]:
        alerts = []
        for number, one in enumerate(given):
            place = f"{path}.alerts[{number}]"
            if one.type in OTHER_PROVIDERS and one.type not in NAMES:
                self.warnings.append(f"{place}: {one.type} is not built: this alert is not sent")
                continue
            if one.type not in NAMES:
                near = get_close_matches(one.type, NAMES, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
                raise _Wrong(f"{place}.type", f"{one.type!r} is no channel; {hint}")
            provider = self._providers.get(one.type)
            if provider is None:
                if one.type not in self._settings.alerting:
                    raise _Wrong(f"{place}.type", f"alerting.{one.type} is missing: it says where to send")
                continue  # its section is wrong, which is said there
            if is_set(one.provider_override):
                self.warnings.append(f"{place}: provider-override is not built, and ignored")
            alert = merged_alert(one, provider.default_alert)
            reminder = float(alert.minimum_reminder_interval or 0)
            if 0 < reminder < _LEAST_REMINDER:
                raise _Wrong(f"{place}.minimum-reminder-interval", "takes at least 5m, or 0 for none")
            if not alert.enabled:
                continue
            thresholds = [
                one or default
                for one, default in ((alert.failure_threshold, 3), (alert.success_threshold, 2))
            ]
            if min(thresholds) < 1:
                raise _Wrong(place, "thresholds are at least 1")
            alerts.append(
                Alert(
                    type=one.type,
                    channel=provider.channel_of(group).uid,
                    failure_threshold=thresholds[0],
                    success_threshold=thresholds[1],
                    reminder=reminder,
                    send_on_resolved=bool(alert.send_on_resolved),
                    description=alert.description or "",
                )
            )
        return tuple(alerts)

    # ── endpoints ───────────────────────────────────────────────────────────────

    def _endpoint(self, given: EndpointSettings, path: str) -> None:
        try:
            self._add(given, path)
        except _Wrong as wrong:
            self._wrong(wrong.path, wrong.text)

    def _add(self, given: EndpointSettings, path: str) -> None:
        disabled = "" if given.enabled else "disabled in the settings"
        kind: Kind = "http"
        options = CheckOptions()
        self._check_name(given.name, given.group, path)
        try:
            kind = self._kind(given, path)
            options = self._options(given, kind, path)
        except _Unsupported as reason:
            disabled = disabled or str(reason)
            title = f"{given.group}/{given.name}".strip("/")
            self.warnings.append(f"{path}: {title} is not checked: {reason}")
        self._take(given.name, given.group, given.url, options, disabled, path)

    def _check_name(self, name: str, group: str, path: str) -> None:
        if not name:
            raise _Wrong(f"{path}.name", "is missing")
        if any(one in f"{name}{group}" for one in '"\\\n'):
            raise _Wrong(f"{path}.name", "takes a name without quotes, backslashes and line breaks")

    def _take(
        self, name: str, group: str, url: str, options: CheckOptions, disabled: str, path: str
    ) -> Check:
        key = key_of(group, name)
        if key in self._checks:
            raise _Wrong(
                f"{path}.name", f"the key {key} is taken by {self._places[key]}: choose another name"
            )
        shared = self._shared.setdefault(options, options)
        check = self._checks[key] = Check(id_of(key), key, name, group, url, shared, disabled)
        self._places[key] = path
        return check

    def _kind(self, given: EndpointSettings, path: str) -> Kind:
        if not given.url:
            raise _Wrong(f"{path}.url", "is missing")
        if is_set(given.ssh):
            raise _Unsupported("SSH is not built")
        if given.dns is not None:
            return "dns"
        scheme, found, rest = given.url.partition("://")
        if scheme in _NOT_BUILT and found:
            raise _Unsupported(f"{_NOT_BUILT[scheme]} is not built")
        kind = _SCHEMES.get(scheme) if found else None
        if kind is None:
            near = get_close_matches(scheme, _SCHEMES, 1)
            hint = f"did you mean {near[0]}://?" if near else f"it begins with {', '.join(_SCHEMES)}"
            raise _Wrong(f"{path}.url", f"{given.url!r} cannot be checked; {hint}")
        if kind == "http":
            try:
                get(given.url)
            except MisuseError as error:
                raise _Wrong(f"{path}.url", str(error)) from None
        elif (kind != "icmp" and not (match := _HOST_PORT.fullmatch(rest))) or (
            kind != "icmp" and match and not 0 < int(match[1]) < 65_536  # noqa: PLR2004
        ):
            raise _Wrong(f"{path}.url", f"takes {scheme}://host:port: {given.url!r}")
        elif not rest:
            raise _Wrong(f"{path}.url", f"takes {scheme}://host: {given.url!r}")
        return kind

    def _options(self, given: EndpointSettings, kind: Kind, path: str) -> CheckOptions:
        defaults = self._settings.defaults
        client = given.client or defaults.client
        for name in UNSUPPORTED_CLIENT:
            if is_set(getattr(client, name.replace("-", "_"))):
                raise _Unsupported(f"client.{name} is not built")
        if kind == "grpc" and client.insecure and given.url.startswith("grpcs:"):
            raise _Unsupported("client.insecure of gRPC is not built")
        interval = float(defaults.interval if given.interval is None else given.interval)
        if interval < _SHORTEST:
            raise _Wrong(f"{path}.interval", f"takes at least 1s: {interval:g}s")
        if not client.timeout > 0:
            raise _Wrong(f"{path}.client.timeout", "takes more than 0s")
        texts = given.conditions or defaults.conditions
        if not texts:
            raise _Wrong(f"{path}.conditions", 'is missing: give at least one, such as "[STATUS] == 200"')
        found = tuple(self._condition(text, f"{path}.conditions[{n}]") for n, text in enumerate(texts))
        names = frozenset(name for condition in found for name in condition.names)
        if "[DOMAIN_EXPIRATION]" in names:
            raise _Unsupported("[DOMAIN_EXPIRATION] is not built")
        locations = given.locations or defaults.locations or self._settings.locations
        self._locations(locations, f"{path}.locations")
        return CheckOptions(
            kind=kind,
            method=given.method.upper(),
            headers=self._headers(given, path),
            body=_body_of(given),
            interval=interval,
            timeout=float(client.timeout),
            conditions=found,
            names=names,
            verify=not client.insecure,
            follow_redirects=not client.ignore_redirect,
            resolver=self._resolver(client, path),
            ip_family={"ip4": 4, "ip6": 6}.get(client.network),  # type: ignore[arg-type]
            certificate=self._certificate(client, path),
            ca_file=self._file(client.tls.ca_file, f"{path}.client.tls.ca-file"),
            locations=tuple(locations),
            quorum=self._quorum(given, len(locations), path),
            parents=given.parents,
            retries=self._retries(given, path),
            alerts=self._alerts(given.alerts or defaults.alerts, given.group, path),
            windows=self._windows(given.maintenance_windows, f"{path}.maintenance-windows"),
            labels=tuple(sorted(given.extra_labels.items())),
            hide_url=given.ui.hide_url or given.ui.hide_hostname or given.ui.hide_port,
            hide_errors=given.ui.hide_errors,
            hide_conditions=given.ui.hide_conditions,
            **self._query(given, path),
        )

    def _headers(self, given: EndpointSettings, path: str) -> tuple[tuple[str, str], ...]:
        headers = {**self._settings.defaults.headers, **given.headers}
        if given.graphql and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
        try:
            check_headers(headers.items())
        except MisuseError as error:
            raise _Wrong(f"{path}.headers", str(error)) from None
        try:
            request(given.method.upper(), "http://a.test/", body=given.body or None)
        except MisuseError as error:
            raise _Wrong(f"{path}.method", str(error)) from None
        return tuple(headers.items())

    def _query(self, given: EndpointSettings, path: str) -> dict[str, str]:
        if given.dns is None:
            return {}
        query_type = given.dns.query_type.upper()
        if query_type not in _QUERY_TYPES:
            raise _Wrong(f"{path}.dns.query-type", f"takes one of {', '.join(_QUERY_TYPES)}: {query_type!r}")
        if not given.dns.query_name:
            raise _Wrong(f"{path}.dns.query-name", "is missing")
        try:
            server_of(given.url)
        except ValueError:
            text = f"takes the address of a name server, such as 8.8.8.8 or 8.8.8.8:53: {given.url!r}"
            raise _Wrong(f"{path}.url", text) from None
        return {"query_type": query_type, "query_name": given.dns.query_name.rstrip(".")}

    def _condition(self, text: str, path: str) -> conditions.Condition:
        try:
            return conditions.parse(text)
        except MisuseError as error:
            raise _Wrong(path, str(error)) from None

    def _resolver(self, client: ClientSettings, path: str) -> str:
        if not client.dns_resolver:
            return ""
        try:
            ip, port = server_of(client.dns_resolver)
        except ValueError:
            text = f"takes a name server's address, such as udp://1.1.1.1:53: {client.dns_resolver!r}"
            raise _Wrong(f"{path}.client.dns-resolver", text) from None
        return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    def _certificate(self, client: ClientSettings, path: str) -> tuple[str, str] | None:
        tls = client.tls
        if not tls.certificate_file and not tls.private_key_file:
            return None
        place = f"{path}.client.tls"
        if not (tls.certificate_file and tls.private_key_file):
            raise _Wrong(place, "takes certificate-file and private-key-file, both")
        certificate = self._file(tls.certificate_file, f"{place}.certificate-file")
        return certificate, self._file(tls.private_key_file, f"{place}.private-key-file")

    def _file(self, name: str, path: str) -> str:
        if name and not (self._folder / name).is_file():
            raise _Wrong(path, f"{name}: there is no such file")
        return str(self._folder / name) if name else ""

    def _retries(self, given: EndpointSettings, path: str) -> int:
        retries = self._settings.defaults.retries if given.retries is None else given.retries
        if not 0 <= retries <= _MOST_RETRIES:
            raise _Wrong(f"{path}.retries", f"takes a number of retries, 0 to {_MOST_RETRIES}")
        return retries

    def _quorum(self, given: EndpointSettings, count: int, path: str) -> int:
        asked = self._settings.defaults.quorum if given.quorum is None else given.quorum
        if asked is None:
            return (count + 1) // 2
        percent = _PERCENT.fullmatch(str(asked))
        if percent is not None and 0 < int(percent[1]) <= 100:  # noqa: PLR2004
            return max(1, -(-count * int(percent[1]) // 100))
        if str(asked).isdigit() and 1 <= int(asked) <= count:
            return int(asked)
        where = "1 location" if count == 1 else f"{count} locations"
        raise _Wrong(
            f"{path}.quorum", f"takes 1 to {count}, since there are {where}, or a percentage: {asked!r}"
        )

    def _windows(
        self, given: tuple[WindowSettings, ...], path: str, *, is_list: bool = True
    ) -> tuple[Window, ...]:
        found = []
        for number, one in enumerate(given):
            if not one.enabled:
                continue
            place = f"{path}[{number}]" if is_list else path
            time = _TIME.fullmatch(one.start)
            if time is None:
                self._wrong(f"{place}.start", f"takes a time as hh:mm: {one.start!r}")
                continue
            if not 0 < one.duration <= 86_400:  # noqa: PLR2004
                self._wrong(f"{place}.duration", "takes more than 0 and at most 24h")
                continue
            try:
                ZoneInfo(one.timezone)
            except (KeyError, ValueError, OSError):
                self._wrong(
                    f"{place}.timezone",
                    f"there is no time zone {one.timezone!r}; it is written Europe/Berlin",
                )
                continue
            wrong = next((day for day in one.every if day not in DAYS), None)
            if wrong is not None:
                self._wrong(f"{place}.every", f"{wrong!r} is no day: {', '.join(DAYS)}")
                continue
            start = int(time[1]) * 60 + int(time[2])
            days = tuple(DAYS.index(day) for day in one.every)
            found.append(Window(start, float(one.duration), one.timezone, days))
        return tuple(found)

    def _locations(self, given: tuple[str, ...], path: str) -> None:
        known = self._settings.locations
        for name in given:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
                raise _Wrong(path, f"{name!r} is no name of a location: letters, digits, dot, dash")
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise _Wrong(path, f"there is no location {name}; {hint}")

    # ── push checks, targets ────────────────────────────────────────────────────

    def _external(self, given: ExternalSettings, path: str) -> str | None:
        try:
            self._check_name(given.name, given.group, path)
            self._check_external(given, path)
            options = CheckOptions(
                kind="push",
                interval=float(given.heartbeat.interval),
                locations=("push",),
                parents=given.parents,
                alerts=self._alerts(given.alerts, given.group, path),
                windows=self._windows(given.maintenance_windows, f"{path}.maintenance-windows"),
                labels=tuple(sorted(given.extra_labels.items())),
            )
            disabled = "" if given.enabled else "disabled in the settings"
            return self._take(given.name, given.group, "", options, disabled, path).key
        except _Wrong as wrong:
            self._wrong(wrong.path, wrong.text)
        return None

    def _check_external(self, given: ExternalSettings, path: str) -> None:
        if not given.token:
            raise _Wrong(f"{path}.token", "is missing: the job sends it as `Authorization: Bearer TOKEN`")
        if 0 < given.heartbeat.interval < _SHORTEST:
            raise _Wrong(f"{path}.heartbeat.interval", "takes at least 1s, or 0 for none")

    def _targets(self, given: TargetsSettings, path: str) -> None:
        if not given.file:
            self._wrong(f"{path}.file", "is missing: a CSV or JSON Lines file with a line for each endpoint")
            return
        file = self._folder / given.file
        cache: dict[str, CheckOptions] = {}
        skipped = 0
        for number, fields in read_targets(file):
            fault = fields if isinstance(fields, Mistake) else self._target(given, fields, cache)
            if fault is not None:
                skipped += 1
                if skipped <= _MOST_SHOWN:
                    self.warnings.append(f"{file}:{number}: {fault}; the line is left out")
        if skipped > _MOST_SHOWN:
            self.warnings.append(f"{file}: {skipped:,} lines are left out")

    def _target(
        self, given: TargetsSettings, fields: dict[str, Any], cache: dict[str, CheckOptions]
    ) -> str | None:
        """Add one line's endpoint; return what is wrong with it."""
        name, group, url = (as_text(fields.get(one, "")) for one in ("name", "group", "url"))
        name, group = name or url, group or given.group
        rest = {key: one for key, one in fields.items() if key not in ("name", "group", "url")}
        scheme = str(url).partition("://")[0]
        known = msgspec.json.encode([rest, group, scheme]).decode()
        try:
            self._check_name(name, group, "")
            options = cache.get(known)
            if options is None:
                values = {
                    key: getattr(given, key)
                    for key in EndpointSettings.__struct_fields__
                    if key not in ("name", "url", "group")
                }
                settings = EndpointSettings(name=name, url=url, group=group, **values)
                over, mistakes = convert(EndpointSettings, with_texts(rest), {})
                if mistakes or over is None:
                    return "; ".join(map(str, mistakes)) or "is no endpoint"
                changed = {key.replace("-", "_"): getattr(over, key.replace("-", "_")) for key in rest}
                settings = msgspec.structs.replace(settings, **changed)
                options = cache[known] = self._options(settings, self._kind(settings, ""), "")
            elif options.kind == "http":
                get(url)
            self._take(name, group, url, options, "", "the targets")
        except _Wrong as wrong:
            return f"{wrong.path.strip('.')}: {wrong.text}"
        except (MisuseError, _Unsupported) as error:
            return str(error)
        return None

    # ── what concerns several ───────────────────────────────────────────────────

    def _parents(self) -> None:
        for key, check in self._checks.items():
            for parent in check.options.parents:
                place = f"{self._places[key]}.parents"
                if parent not in self._checks:
                    near = get_close_matches(parent, self._checks, 1)
                    hint = f"did you mean {near[0]}?" if near else "it is the key of an endpoint, GROUP_NAME"
                    self._wrong(place, f"there is no endpoint {parent}; {hint}")
                elif cycle := self._cycle(key):
                    self._wrong(place, f"is a circle: {' → '.join(cycle)}")
                    break

    def _cycle(self, start: str) -> list[str]:
        """The way from a check over its parents back to itself; empty if there is none."""
        stack, seen = [[start]], {start}
        while stack:
            way = stack.pop()
            for parent in self._checks[way[-1]].options.parents:
                if parent == start:
                    return [*way, start]
                if parent in self._checks and parent not in seen:
                    seen.add(parent)
                    stack.append([*way, parent])
        return []

    def _route(self, settings: MonitorSettings) -> None:
        labels = {name for check in self._checks.values() for name, _ in check.options.labels}
        for name in settings.route.group_by:
            if name not in ("group", "name", "key") and name not in labels:
                known = ", ".join(["group", "name", *sorted(labels)])
                self._wrong("route.group_by", f"there is no label {name}; there are {known}")


def _body_of(given: EndpointSettings) -> str:
    body = given.body
    for name, value in (("NAME", given.name), ("GROUP", given.group), ("URL", given.url)):
        body = body.replace(f"[ENDPOINT_{name}]", value)
    return msgspec.json.encode({"query": body}).decode() if given.graphql else body
