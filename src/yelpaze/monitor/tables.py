"""The tables of a monitor. Points in time are milliseconds since 1970; lists and objects are JSON.

check                     what the pages know of checks: the configuration's, written at each load
result_YYYYMMDD           raw results, a table a day, dropped by retention
rollup                    counts and a latency histogram by minute, hour and day, and location
dirty                     minutes, hours and days whose sums must be made anew
state                     snapshots of the fold, by partition, with the offset that they stand for
incident 1─n transition   transitions for ever; `published` is the outbox
silence maintenance ack   what operators asked for
notification              the outbox of alarms; alert_state: what the channels have been told
location push             heartbeats; when push checks must call
"""

from yelpaze.store.migrations import Migrations
from yelpaze.store.session import Table

# Upper edges of the latency histogram, in milliseconds; the last column is beyond them.
EDGES = (1, 2, 3, 5, 8, 13, 20, 30, 50, 80, 130, 200, 300, 500, 800, 1300, 2000, 5000, 10_000)
BUCKETS = tuple(f"h{number}" for number in range(len(EDGES) + 1))
MINUTE, HOUR, DAY_MS = 60_000, 3_600_000, 86_400_000
LEVELS = {"m": MINUTE, "h": HOUR, "d": DAY_MS}

_HISTOGRAM = ", ".join(f"{name} BIGINT NOT NULL" for name in BUCKETS)

MONITOR = Migrations(
    "monitor",
    (
        f"""
        CREATE TABLE monitor_check (
            id BIGINT PRIMARY KEY, key TEXT NOT NULL UNIQUE, place BIGINT NOT NULL, name TEXT NOT NULL,
            grp TEXT NOT NULL, kind TEXT NOT NULL, url TEXT NOT NULL, interval BIGINT NOT NULL,
            config TEXT NOT NULL, removed BIGINT NOT NULL
        );
        CREATE TABLE rollup (
            level TEXT NOT NULL, check_id BIGINT NOT NULL, location TEXT NOT NULL, bucket BIGINT NOT NULL,
            good BIGINT NOT NULL, bad BIGINT NOT NULL, total BIGINT NOT NULL, {_HISTOGRAM},
            PRIMARY KEY (level, check_id, bucket, location)
        );
        CREATE INDEX rollup_bucket ON rollup (level, bucket);
        CREATE TABLE result_day (day BIGINT PRIMARY KEY);
        CREATE TABLE dirty (level TEXT NOT NULL, bucket BIGINT NOT NULL, PRIMARY KEY (level, bucket));
        CREATE TABLE last_result (
            check_id BIGINT NOT NULL, location TEXT NOT NULL, slot BIGINT NOT NULL, success BIGINT NOT NULL,
            status BIGINT NOT NULL, duration BIGINT NOT NULL, detail TEXT NOT NULL,
            PRIMARY KEY (check_id, location)
        );
        CREATE TABLE fold_state (
            topic TEXT NOT NULL, partition BIGINT NOT NULL, state BYTEA NOT NULL,
            PRIMARY KEY (topic, partition)
        );
        CREATE TABLE incident (
            id TEXT PRIMARY KEY, check_key TEXT NOT NULL, state TEXT NOT NULL, since BIGINT NOT NULL,
            until BIGINT, reason TEXT NOT NULL, message TEXT NOT NULL, acked BIGINT, acked_by TEXT NOT NULL,
            comment TEXT NOT NULL, config TEXT NOT NULL
        );
        CREATE UNIQUE INDEX incident_open ON incident (check_key) WHERE until IS NULL;
        CREATE INDEX incident_since ON incident (since);
        CREATE INDEX incident_check ON incident (check_key, since);
        CREATE TABLE transition (
            id TEXT PRIMARY KEY, incident TEXT NOT NULL, n BIGINT NOT NULL, kind TEXT NOT NULL,
            at BIGINT NOT NULL, value TEXT NOT NULL, published BIGINT NOT NULL
        );
        CREATE INDEX transition_incident ON transition (incident, n);
        CREATE INDEX transition_outbox ON transition (id) WHERE published = 0;
        CREATE TABLE silence (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, matchers TEXT NOT NULL, since BIGINT NOT NULL,
            until BIGINT NOT NULL, by_whom TEXT NOT NULL, comment TEXT NOT NULL
        );
        CREATE INDEX silence_until ON silence (until);
        CREATE TABLE alert_state (id TEXT PRIMARY KEY, value TEXT NOT NULL, version BIGINT NOT NULL);
        CREATE TABLE notification (
            id TEXT PRIMARY KEY, created BIGINT NOT NULL, value TEXT NOT NULL, published BIGINT NOT NULL
        );
        CREATE INDEX notification_outbox ON notification (created) WHERE published = 0;
        CREATE TABLE location (
            name TEXT NOT NULL, probe TEXT NOT NULL, seen BIGINT NOT NULL, blind BIGINT NOT NULL,
            skew BIGINT NOT NULL, late BIGINT NOT NULL, checks BIGINT NOT NULL, PRIMARY KEY (name, probe)
        );
        CREATE TABLE push (check_key TEXT PRIMARY KEY, due BIGINT NOT NULL)
        """,
    ),
)

CHECK, LAST = MONITOR.table("monitor_check"), MONITOR.table("last_result")
DIRTY, PLACE = MONITOR.table("dirty"), MONITOR.table("location")
INCIDENT, TRANSITION = MONITOR.table("incident"), MONITOR.table("transition")
NOTIFICATION, SILENCE = MONITOR.table("notification"), MONITOR.table("silence")

_RESULT_COLUMNS = {
    "check_id": "bigint",
    "slot": "bigint",
    "location": "text",
    "attempt": "bigint",
    "final": "bigint",
    "at": "bigint",
    "success": "bigint",
    "status": "bigint",
    "duration": "bigint",
    "detail": "text",
}


def result_table(day: int) -> Table:
    """The raw results of a day, counted from 1970."""
    return Table(f"result_{day}", _RESULT_COLUMNS)


def create_result_table(day: int) -> list[str]:
    """The statements that make it. Durations are microseconds."""
    name = f"result_{day}"
    columns = ", ".join(f"{column} {kind.upper()} NOT NULL" for column, kind in _RESULT_COLUMNS.items())
    key = "PRIMARY KEY (check_id, slot, location, attempt)"
    return [
        f"CREATE TABLE IF NOT EXISTS {name} ({columns}, {key})",
        f"CREATE INDEX IF NOT EXISTS {name}_slot ON {name} (slot)",
    ]
