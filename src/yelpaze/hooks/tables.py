"""The tables of hooks. Points in time are milliseconds since 1970; lists and objects are JSON.

application 1─n endpoint 1─n secret
application 1─n message 1─n delivery n─1 endpoint        delivery 1─n attempt
ready: endpoints that have got something to do from another process than their owner
"""

from yelpaze.store.migrations import Migrations

SHARDS = 64
SUCCEEDED, PENDING, FAILED, CANCELED = 0, 1, 2, 4  # of a delivery; Svix's numbers

HOOKS = Migrations(
    "hooks",
    (
        """
        CREATE TABLE application (
            id TEXT PRIMARY KEY, uid TEXT, name TEXT NOT NULL, rate BIGINT, metadata TEXT NOT NULL,
            version BIGINT NOT NULL, created BIGINT NOT NULL, updated BIGINT NOT NULL
        );
        CREATE UNIQUE INDEX application_uid ON application (uid) WHERE uid IS NOT NULL;
        CREATE TABLE token (
            id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, app_id TEXT, name TEXT NOT NULL,
            created BIGINT NOT NULL, expires BIGINT
        );
        CREATE TABLE event_type (
            name TEXT PRIMARY KEY, content TEXT NOT NULL, archived BIGINT NOT NULL,
            created BIGINT NOT NULL, updated BIGINT NOT NULL
        );
        CREATE TABLE endpoint (
            id TEXT PRIMARY KEY, app_id TEXT NOT NULL, uid TEXT, sealed BYTEA NOT NULL,
            description TEXT NOT NULL, event_types TEXT, channels TEXT, metadata TEXT NOT NULL,
            version BIGINT NOT NULL, shard BIGINT NOT NULL, paused BIGINT NOT NULL,
            disabled BIGINT NOT NULL, disabled_reason TEXT NOT NULL,
            failures BIGINT NOT NULL, failing_since BIGINT, warned BIGINT NOT NULL,
            blocked_until BIGINT NOT NULL, created BIGINT NOT NULL, updated BIGINT NOT NULL
        );
        CREATE UNIQUE INDEX endpoint_uid ON endpoint (app_id, uid) WHERE uid IS NOT NULL;
        CREATE INDEX endpoint_app ON endpoint (app_id, id);
        CREATE INDEX endpoint_shard ON endpoint (shard);
        CREATE INDEX endpoint_failing ON endpoint (failing_since) WHERE failing_since IS NOT NULL;
        CREATE TABLE secret (
            endpoint_id TEXT NOT NULL, created BIGINT NOT NULL, expires BIGINT, sealed BYTEA NOT NULL,
            PRIMARY KEY (endpoint_id, created)
        );
        CREATE TABLE idempotency (
            scope TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL,
            created BIGINT NOT NULL, PRIMARY KEY (scope, key)
        );
        CREATE INDEX idempotency_created ON idempotency (created);
        CREATE TABLE message (
            id TEXT PRIMARY KEY, app_id TEXT NOT NULL, uid TEXT, event_type TEXT NOT NULL, channels TEXT,
            tags TEXT, payload BYTEA NOT NULL, order_key TEXT, expires BIGINT, schedule TEXT,
            deliver_at BIGINT, discard_at BIGINT, created BIGINT NOT NULL
        );
        CREATE UNIQUE INDEX message_uid ON message (app_id, uid) WHERE uid IS NOT NULL;
        CREATE INDEX message_app ON message (app_id, id);
        CREATE INDEX message_order ON message (app_id, order_key) WHERE order_key IS NOT NULL;
        CREATE INDEX message_discard ON message (discard_at) WHERE discard_at IS NOT NULL;
        CREATE TABLE delivery (
            endpoint_id TEXT NOT NULL, message_id TEXT NOT NULL, state BIGINT NOT NULL, due BIGINT NOT NULL,
            attempts BIGINT NOT NULL, step BIGINT NOT NULL, cause BIGINT NOT NULL, version BIGINT NOT NULL,
            PRIMARY KEY (endpoint_id, message_id)
        );
        CREATE INDEX delivery_due ON delivery (endpoint_id, due, message_id) WHERE state = 1;
        CREATE INDEX delivery_message ON delivery (message_id);
        CREATE TABLE attempt (
            id TEXT PRIMARY KEY, app_id TEXT NOT NULL, endpoint_id TEXT NOT NULL, message_id TEXT NOT NULL,
            event_type TEXT NOT NULL, number BIGINT NOT NULL, at BIGINT NOT NULL, state BIGINT NOT NULL,
            status BIGINT NOT NULL, reason TEXT NOT NULL, response TEXT NOT NULL, duration BIGINT NOT NULL,
            phases TEXT NOT NULL, cause BIGINT NOT NULL, url TEXT NOT NULL, next_due BIGINT
        );
        CREATE INDEX attempt_endpoint ON attempt (endpoint_id, id);
        CREATE INDEX attempt_message ON attempt (message_id, id);
        CREATE TABLE ready (id BIGINT PRIMARY KEY, shard BIGINT NOT NULL, endpoint_id TEXT NOT NULL);
        CREATE INDEX ready_shard ON ready (shard)
        """,
    ),
)

MESSAGE, DELIVERY, ATTEMPT = HOOKS.table("message"), HOOKS.table("delivery"), HOOKS.table("attempt")
READY, IDEMPOTENCY, ENDPOINT = HOOKS.table("ready"), HOOKS.table("idempotency"), HOOKS.table("endpoint")
