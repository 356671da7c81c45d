"""The monitor as separate services on real Kafka and PostgreSQL, while everything is killed and frozen."""

import collections
import time

import psycopg
import pytest

from support.deployment import Deployment, Sites
from support.needed import needs
from support.waiting import until

needs("confluent_kafka", "psycopg")
pytestmark = pytest.mark.slow
COUNT = 40
ILL = {"s7", "s23"}
SERVICES = [
    "probe-eu", "probe-us", "store", "evaluate-1", "evaluate-2", "alarm-1", "alarm-2", "web", "hooks",
]  # fmt: skip


def settings(sites):
    alert = {"type": "webhook", "failure-threshold": 2, "success-threshold": 2, "send-on-resolved": True}
    return {
        "locations": ["eu", "us"],
        "defaults": {"interval": "1s", "client": {"timeout": "3s"}, "conditions": ["[STATUS] == 200"]},
        "alerting": {"webhook": {"url": f"{sites.url}/hook"}},
        "endpoints": [{"name": f"s{n}", "url": f"{sites.url}/s{n}", "alerts": [alert]} for n in range(COUNT)],
    }


@pytest.fixture
def sites():
    sites = Sites()
    yield sites
    sites.close()


@pytest.fixture
def deployment(tmp_path, sites, kafka, postgres):
    deployment = Deployment(tmp_path, f"kafka://{kafka.bootstrap}", postgres.new_database(), settings(sites))
    yield deployment
    deployment.close()


def rows(deployment, sql):
    for _ in range(100):
        try:
            with psycopg.connect(deployment.store, connect_timeout=5) as connection:
                return connection.execute(sql).fetchall()
        except psycopg.OperationalError:  # it has just been killed
            time.sleep(0.2)
    raise AssertionError("PostgreSQL is away")


def states(deployment):
    return dict(rows(deployment, "SELECT check_key, state FROM incident WHERE until IS NULL"))


def wait(condition, deployment, sites, seconds=120):
    try:
        until(condition, seconds)
    except AssertionError:
        for name, text in deployment.logs().items():
            print(f"--- {name}\n{text}")
        for sql in (
            "SELECT check_key, state, since, until, reason FROM incident",
            "SELECT id, kind, published FROM transition ORDER BY at",
            "SELECT id, published FROM notification ORDER BY created",
            "SELECT consumer, topic, partition, next FROM position WHERE consumer <> 'store' AND next > 0",
            "SELECT id, value FROM alert_state",
        ):
            print(sql, *rows(deployment, sql), sep="\n  ")
        print(*((name, body["key"], body["status"]) for name, body in sites.heard), sep="\n")
        raise


def told(sites, status):
    return {body["key"] for _, body in sites.heard if body["status"] == status}


def outage(deployment, sites, trouble):
    """Some sites go down and come back, while `trouble` goes on; what was told meanwhile."""
    began = time.time()
    wait(lambda: deployment_counts(deployment) >= COUNT, deployment, sites)
    sites.down |= ILL
    trouble()
    keys = {f"_{name}" for name in ILL}
    wait(
        lambda: {key for key, state in states(deployment).items() if state == "down"} == keys,
        deployment,
        sites,
    )
    wait(lambda: told(sites, "firing") == keys, deployment, sites)
    back = time.time()
    sites.down.clear()
    trouble()
    wait(lambda: not states(deployment), deployment, sites)
    wait(lambda: told(sites, "resolved") == keys, deployment, sites)
    found = rows(
        deployment, "SELECT check_key, since, until, reason FROM incident WHERE reason <> 'false_alarm'"
    )
    assert sorted(key for key, *_ in found) == sorted(keys), found
    for _, since, until_, reason in found:
        assert began * 1000 - 1000 <= since <= back * 1000
        assert back * 1000 - 2500 <= until_ <= time.time() * 1000
        assert reason == "probe_cleared"
    counts = collections.Counter(name for name, _ in sites.heard)
    by_event = collections.Counter((body["key"], body["status"]) for _, body in sites.heard)
    assert set(by_event) == {(key, status) for key in keys for status in ("firing", "resolved")}
    assert len(counts) == 2 * len(keys), sites.heard  # one message for each event
    return counts


def deployment_counts(deployment):
    return rows(deployment, "SELECT count(DISTINCT check_id) FROM last_result")[0][0]


def test_an_outage_is_told_once(deployment, sites):
    deployment.start(*SERVICES)
    counts = outage(deployment, sites, lambda: None)
    assert set(counts.values()) == {1}


@pytest.mark.timeout(600)
def test_whatever_is_killed_every_incident_opens_and_closes_once(deployment, sites):
    deployment.start(*SERVICES)

    def trouble():
        for name in ("evaluate-1", "alarm-1", "store", "probe-us", "hooks", "web", "evaluate-2", "alarm-2"):
            deployment.restart(name)

    counts = outage(deployment, sites, trouble)
    # A message that was answered when hooks were killed is sent again, with its id.
    assert sum(counts.values()) - len(counts) <= 2


@pytest.mark.timeout(600)
def test_frozen_services_do_no_harm_when_they_wake(deployment, sites):
    deployment.start(*SERVICES)

    def trouble():
        for name in ("evaluate-1", "alarm-1"):
            deployment.freeze(name)
        lines = len(rows(deployment, "SELECT 1 FROM transition"))
        # The other members take the partitions over.
        wait(lambda: len(rows(deployment, "SELECT 1 FROM transition")) > lines, deployment, sites)
        for name in ("evaluate-1", "alarm-1"):
            deployment.thaw(name)

    counts = outage(deployment, sites, trouble)
    assert set(counts.values()) == {1}


@pytest.mark.timeout(600)
def test_broker_and_database_killed_during_an_outage(deployment, sites, kafka, postgres):
    deployment.start(*SERVICES)

    def trouble():
        kafka.kill()
        time.sleep(2)
        kafka.start()
        postgres.kill()
        time.sleep(2)
        postgres.start()

    counts = outage(deployment, sites, trouble)
    assert sum(counts.values()) - len(counts) <= 2
