"""A monitor's files: Gatus's names, what is wrong with file and line, several files, targets."""

import pytest

from yelpaze.model.errors import InputError
from yelpaze.monitor.config.loading import config_of, load_monitor

SITE = {"name": "web", "group": "core", "url": "https://example.org/", "conditions": ["[STATUS] == 200"]}


def site(**changes):
    return {**SITE, **changes}


def only(**changes):
    return next(iter(config_of({"endpoints": [site(**changes)]}).checks.values()))


def test_a_gatus_endpoint_is_read():
    config = config_of(
        {
            "alerting": {
                "slack": {
                    "webhook-url": "https://hooks.slack.test/services/x",
                    "default-alert": {"description": "health check failed", "failure-threshold": 5},
                }
            },
            "endpoints": [
                site(
                    method="post",
                    headers={"X-Port": 8080},
                    body="[ENDPOINT_GROUP]/[ENDPOINT_NAME]",
                    interval="5m",
                    client={"timeout": "3s", "insecure": True, "ignore-redirect": True},
                    alerts=[{"type": "slack", "send-on-resolved": True, "minimum-reminder-interval": "30m"}],
                )
            ],
        }
    )
    [check] = config.checks.values()
    options = check.options
    assert (check.key, check.title, options.method, options.interval) == (
        "core_web",
        "core/web",
        "POST",
        300.0,
    )
    assert (options.timeout, options.verify, options.follow_redirects) == (3.0, False, False)
    assert options.headers == (("X-Port", "8080"),)
    assert options.body == "core/web"
    [alert] = options.alerts
    assert (alert.failure_threshold, alert.success_threshold, alert.reminder) == (5, 2, 1800.0)
    assert (alert.description, alert.send_on_resolved, alert.channel) == (
        "health check failed",
        True,
        "slack",
    )
    assert config.channels["slack"].url == "https://hooks.slack.test/services/x"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://a.test", "http"), ("tcp://a.test:5432", "tcp"), ("udp://[::1]:53", "udp"),
        ("tls://a.test:443", "tls"), ("starttls://a.test:587", "starttls"), ("icmp://a.test", "icmp"),
        ("grpc://a.test:50051", "grpc"), ("grpcs://a.test:443", "grpc"),
    ],
)  # fmt: skip
def test_the_url_says_what_is_checked(url, kind):
    assert only(url=url, conditions=["[CONNECTED] == true"]).options.kind == kind


def test_a_dns_check_asks_the_server_in_its_url():
    options = only(url="8.8.8.8", dns={"query-name": "example.org.", "query-type": "aaaa"}).options
    assert (options.kind, options.query_name, options.query_type) == ("dns", "example.org", "AAAA")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"url": "ssh://a.test:22"}, "SSH is not built"),
        ({"url": "wss://a.test"}, "WebSocket is not built"),
        ({"ssh": {"username": "x"}}, "SSH is not built"),
        ({"client": {"oauth2": {"token-url": "x"}}}, "client.oauth2 is not built"),
        ({"client": {"proxy-url": "http://p.test"}}, "client.proxy-url is not built"),
        ({"conditions": ["[DOMAIN_EXPIRATION] > 720h"]}, "[DOMAIN_EXPIRATION] is not built"),
        ({"enabled": False}, "disabled in the settings"),
    ],
)
def test_what_is_not_built_disables_that_check_by_name(changes, why):
    config = config_of({"endpoints": [site(**changes), site(name="other")]})
    assert config.checks["core_web"].disabled == why
    assert [check.key for check in config.enabled()] == ["core_other"]
    if "enabled" not in changes:
        assert config.warnings == (f"endpoints[0]: core/web is not checked: {why}",)


def mistakes(settings):
    with pytest.raises(InputError) as refused:
        config_of(settings)
    return str(refused.value).split("\n")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "endpoints[0].name: is missing"),
        ({"url": ""}, "endpoints[0].url: is missing"),
        ({"url": "htps://a.test"}, "did you mean https://?"),
        ({"url": "tcp://a.test"}, "takes tcp://host:port"),
        ({"url": "http://a b"}, "endpoints[0].url: "),
        ({"interval": "500ms"}, "endpoints[0].interval: takes at least 1s"),
        ({"interval": "soon"}, "endpoints[0].interval: a duration is written"),
        ({"intervall": "5s"}, "endpoints[0].intervall: there is no such setting; did you mean interval?"),
        ({"conditions": []}, "endpoints[0].conditions: is missing"),
        ({"conditions": ["[STATUS] = 200"]}, "endpoints[0].conditions[0]: '[STATUS] = 200' is no condition"),
        ({"client": {"timout": "1s"}}, "client.timout: there is no such setting; did you mean timeout?"),
        ({"client": {"dns-resolver": "dns.test:53"}}, "client.dns-resolver: takes a name server"),
        ({"client": {"tls": {"certificate-file": "no.pem"}}}, "client.tls: takes certificate-file and private-key"),
        ({"alerts": [{"type": "slakc"}]}, "'slakc' is no channel; did you mean slack?"),
        ({"alerts": [{"type": "slack"}]}, "alerting.slack is missing"),
        ({"locations": ["mars"]}, "there is no location mars; there are local"),
        ({"quorum": 3}, "quorum: takes 1 to 1"),
        ({"quorum": "200%"}, "quorum: takes 1 to 1"),
        ({"parents": ["core_wbe"]}, "there is no endpoint core_wbe; did you mean core_web?"),
        ({"parents": ["core_web"]}, "is a circle: core_web → core_web"),
        ({"dns": {"query-type": "X", "query-name": "a"}}, "dns.query-type: takes one of A, AAAA"),
        ({"dns": {"query-type": "A"}}, "dns.query-name: is missing"),
        ({"headers": {"Content-Length": "3"}}, "endpoints[0].headers: header 'Content-Length' is set by the engine"),
        ({"maintenance-windows": [{"start": "25:00", "duration": "1h"}]}, "start: takes a time as hh:mm"),
        ({"maintenance-windows": [{"start": "10:00"}]}, "duration: takes more than 0"),
        ({"maintenance-windows": [{"start": "10:00", "duration": "1h", "every": ["Mon"]}]}, "'Mon' is no day"),
        ({"maintenance-windows": [{"start": "10:00", "duration": "1h", "timezone": "Mars/X"}]}, "no time zone"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(changes, said):
    found = mistakes({"endpoints": [site(**changes)]})
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "there is nothing to check"),
        ({"endpoints": [SITE, SITE]}, "the key core_web is taken by endpoints[0]"),
        ({"endpoints": [SITE], "alerting": {"slak": {}}}, "alerting.slak: there is no such provider; did you mean slack?"),
        ({"endpoints": [SITE], "alerting": {"slack": {}}}, "alerting.slack.webhook-url: is missing"),
        ({"endpoints": [SITE], "alerting": {"pagerduty": {"integration-key": "x"}}}, "takes 32 characters"),
        ({"endpoints": [SITE], "alerting": {"custom": {"url": "http://a.test/[ENDPOINT_NAME]"}}}, "in the body only"),
        ({"endpoints": [SITE], "route": {"group_by": ["team"]}}, "route.group_by: there is no label team"),
        ({"external-endpoints": [{"name": "job"}]}, "external-endpoints[0].token: is missing"),
        ({"endpoints": [SITE], "connectivity": {"checker": {"target": "1.1.1.1"}}}, "takes host:port"),
        (
            {"endpoints": [site(name="a", parents=["core_b"]), site(name="b", parents=["core_a"])]},
            "is a circle: core_a → core_b → core_a",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_beyond_one_endpoint(settings, said):
    assert any(said in line for line in mistakes(settings))


def test_other_providers_are_left_out_with_a_warning():
    config = config_of({"alerting": {"matrix": {}}, "endpoints": [site(alerts=[{"type": "matrix"}])]})
    assert [line.split(":")[0] for line in config.warnings] == ["alerting.matrix", "endpoints[0].alerts[0]"]


def test_groups_can_have_channels_of_their_own():
    config = config_of(
        {
            "alerting": {
                "slack": {
                    "webhook-url": "https://a.test/1",
                    "overrides": [{"group": "core", "webhook-url": "https://a.test/2"}],
                }
            },
            "endpoints": [site(alerts=[{"type": "slack"}]), site(group="x", alerts=[{"type": "slack"}])],
        }
    )
    assert {check.key: check.options.alerts[0].channel for check in config.checks.values()} == {
        "core_web": "slack-core",
        "x_web": "slack",
    }
    assert config.channels["slack-core"].url == "https://a.test/2"


def test_quorum_is_half_of_the_locations_unless_it_is_said():
    locations = {"locations": ["a", "b", "c"]}
    for asked, quorum in ((None, 2), (1, 1), ("100%", 3), ("34%", 2), (3, 3)):
        more = {} if asked is None else {"quorum": asked}
        [check] = config_of({**locations, "endpoints": [site(**more)]}).checks.values()
        assert check.options.quorum == quorum


# ── files ───────────────────────────────────────────────────────────────────────


def write(folder, **files):
    paths = []
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.write_text(text)
        paths.append(path)
    return paths


ENDPOINT = """
endpoints:
  - name: {name}
    url: "https://example.org/{name}"
    conditions: ["[STATUS] == 200"]
"""


def test_variables_anchors_and_times_of_day(tmp_path):
    [path] = write(
        tmp_path,
        monitor="""
x-default: &default
  interval: 30s
  conditions: ["[STATUS] == 200"]
maintenance: {start: 23:00, duration: 1h, every: [Monday]}
endpoints:
  - <<: *default
    name: web
    url: "https://${HOST}:$PORT/"
    body: "costs 5$$"
""",
    )
    config = load_monitor([path], {"HOST": "example.org", "PORT": "8443"})
    check = config.checks["_web"]
    assert (check.url, check.options.interval, check.options.body) == (
        "https://example.org:8443/",
        30.0,
        "costs 5$",
    )
    assert config.windows[0].start == 23 * 60
    with pytest.raises(InputError) as refused:
        load_monitor([path], {"PORT": "1"})
    assert str(refused.value).startswith(f"{path}:9: endpoints[0].url: the variable HOST is not set")


def test_several_files_are_one_and_mistakes_name_theirs(tmp_path):
    paths = write(tmp_path, a=ENDPOINT.format(name="a"), b=ENDPOINT.format(name="b") + "    intervall: 3s\n")
    with pytest.raises(InputError) as refused:
        load_monitor([tmp_path], {})
    assert str(refused.value).startswith(f"{paths[1]}:6: endpoints[1].intervall: there is no such setting")
    paths[1].write_text(ENDPOINT.format(name="b"))
    assert list(load_monitor(paths, {}).checks) == ["_a", "_b"]


def test_a_value_that_stands_twice_is_a_mistake(tmp_path):
    write(tmp_path, a="metrics: true\n" + ENDPOINT.format(name="a"), b="metrics: false\n")
    with pytest.raises(InputError, match=r"b.yaml:1: metrics: stands in .*a.yaml:1 already"):
        load_monitor([tmp_path], {})


def test_targets_with_bad_lines_go_on_and_report_them(tmp_path):
    (tmp_path / "sites.csv").write_text(
        "name,group,url,interval\na,x,https://a.test/,\nb,x,htp://b.test,\na,x,https://c.test,\n"
        "d,x,https://d.test,5s\ne,x,tcp://e.test:1,0.1s\n"
    )
    (tmp_path / "more.jsonl").write_text(
        '{"name":"j","url":"https://j.test"}\nnot json\n{"name":"k","url":"https://k.test","colour":1}\n'
    )
    [path] = write(
        tmp_path,
        monitor="""
defaults: {conditions: ["[CONNECTED] == true"]}
targets:
  - file: sites.csv
    interval: 5m
  - file: more.jsonl
""",
    )
    config = load_monitor([path], {})
    assert {key: check.options.interval for key, check in config.checks.items()} == {
        "x_a": 300.0, "x_d": 5.0, "_j": 60.0,
    }  # fmt: skip
    said = [line.removeprefix(f"{tmp_path}/") for line in config.warnings]
    assert [line.split(":")[0:2] for line in said] == [
        ["sites.csv", "3"], ["sites.csv", "4"], ["sites.csv", "6"], ["more.jsonl", "2"], ["more.jsonl", "3"],
    ]  # fmt: skip
    assert "did you mean http://?" in said[0]


def test_a_million_targets_share_their_options(tmp_path):
    lines = "".join(f'{{"name":"s{n}","url":"http://s{n}.test/"}}\n' for n in range(5000))
    (tmp_path / "t.jsonl").write_text(lines)
    [path] = write(tmp_path, m='targets: [{file: t.jsonl, conditions: ["[STATUS] == 200"]}]\n')
    checks = load_monitor([path], {}).checks.values()
    assert len(checks) == 5000
    assert len({id(check.options) for check in checks}) == 1
