"""`yelpaze hooks serve` by Svix's own Python SDK, and what it sends by two libraries that verify webhooks."""

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import standardwebhooks
from svix.api import (
    ApplicationIn,
    ApplicationListOptions,
    ApplicationPatch,
    EndpointCreateOptions,
    EndpointGetStatsOptions,
    EndpointHeadersIn,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointListOptions,
    EndpointPatch,
    EndpointSecretRotateIn,
    EndpointUpsertIn,
    EventExampleIn,
    EventTypeCreateOptions,
    EventTypeDeleteOptions,
    EventTypeIn,
    EventTypeListOptions,
    EventTypePatch,
    EventTypeUpsertIn,
    MessageAttemptListAttemptedDestinationsOptions,
    MessageAttemptListAttemptedMessagesOptions,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageCreateOptions,
    MessageGetOptions,
    MessageIn,
    MessageListOptions,
    RecoverIn,
    ReplayIn,
    Svix,
    SvixAsync,
    SvixOptions,
)
from svix.api.application import ApplicationCreateOptions
from svix.api.message import message_in_raw
from svix.exceptions import HttpError, HTTPValidationError
from svix.models import Ordering, StatusCodeClass
from svix.webhooks import Webhook, WebhookVerificationError

from support.hooks_service import ADMIN_TOKEN, HooksService
from support.waiting import until

SUCCESS, PENDING, FAIL, SENDING, CANCELED = range(5)
SCHEDULED, MANUAL = range(2)
NUMBERS = count(1)
WEBHOOKS = (Webhook, standardwebhooks.Webhook)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WHOLE = MessageCreateOptions(with_content=True)  # the SDK asks for no content by default
SCHEMA = {"1": {"type": "object", "examples": [{"id": "in_1"}, {"id": "in_2"}]}}


@pytest.fixture(scope="module")
def hooks(tmp_path_factory):
    """With one attempt a message: what fails has failed at once."""
    service = HooksService(tmp_path_factory.mktemp("hooks"), schedule="[0]")
    yield service
    service.stop()


@pytest.fixture
def svix(hooks):
    with client_of(hooks) as client:
        yield client


@pytest.fixture
def app(svix):
    """The id of an application of the test's own."""
    return svix.application.create(ApplicationIn(name="Acme")).id


@contextmanager
def client_of(hooks, token=ADMIN_TOKEN):
    """It does not retry: a 5xx is to be seen."""
    client = Svix(token, SvixOptions(server_url=hooks.url, retry_schedule=[]))
    try:
        yield client
    finally:
        client._httpx_client.close()  # it has no way of its own


def new_name(what="name"):
    return f"{what}.n{next(NUMBERS)}"


def endpoint_at(svix, app, service, **fields):
    return svix.endpoint.create(app, EndpointIn(url=f"{service.url}/in", **fields))


def sent(svix, app, event_type="invoice.paid", payload=None, **fields):
    given = MessageIn(event_type=event_type, payload=payload or {"id": "in_1"}, **fields)
    return svix.message.create(app, given, WHOLE)


def attempts_of(svix, app, message, number=1, **options):
    """Wait until a message has had so many attempts; they, the newest first."""

    def found():
        page = svix.message_attempt.list_by_msg(app, message, MessageAttemptListByMsgOptions(**options))
        return page.data if len(page.data) >= number else None

    return until(found)


def verified(call, *secrets):
    """Check a received request with each secret by each library."""
    for secret in secrets:
        for library in WEBHOOKS:
            library(secret).verify(call.body, dict(call.headers))
    return json.loads(call.body)


def pages_of(listed, options, limit=2, **fields):
    """All pages of a list, one after the other; what each iterator says is checked."""
    found, iterator = [], None
    while True:
        page = listed(options(limit=limit, iterator=iterator, **fields))
        found.append(page)
        assert len(page.data) <= limit
        if page.done:
            return found
        assert len(page.data) == limit
        assert page.iterator is not None
        iterator = page.iterator


def read_both_ways(listed, options, ids, *, order=None, name="id"):
    """Read a list to its end and back again; `ids` are all of it, in the order in which it is given.

    Others may be before and after them.
    """
    fields = {} if order is None else {"order": order}
    pages = pages_of(listed, options, **fields)
    found = [getattr(one, name) for page in pages for one in page.data]
    assert len(set(found)) == len(found)
    assert [one for one in found if one in ids] == ids
    # Back: `prev_iterator` gives the page before, in the same order.
    before = []
    for page, earlier in zip(pages[:0:-1], pages[-2::-1], strict=True):
        if page.prev_iterator is None:  # the last one may be empty
            assert not page.data
            continue
        back = listed(options(limit=2, iterator=page.prev_iterator, **fields))
        assert [getattr(one, name) for one in back.data] == [getattr(one, name) for one in earlier.data]
        before.append(back)
    return pages


def error_of(status, code, call, *arguments):
    with pytest.raises(HttpError) as caught:
        call(*arguments)
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert error.detail
    return error


def mistakes_of(call, *arguments):
    """The fields that a 422 names."""
    with pytest.raises(HTTPValidationError) as caught:
        call(*arguments)
    assert caught.value.status_code == 422
    assert all(one.msg and one.type for one in caught.value.detail)
    return [one.loc for one in caught.value.detail]


# ── applications ────────────────────────────────────────────────────────────────


def test_an_application_is_created_read_changed_and_deleted(svix):
    uid = new_name("acme")
    made = svix.application.create(
        ApplicationIn(name="Acme", uid=uid, throttle_rate=7, metadata={"plan": "gold"})
    )
    assert made.id.startswith("app_")
    assert (made.name, made.uid, made.throttle_rate, made.metadata) == ("Acme", uid, 7, {"plan": "gold"})
    assert abs(made.created_at - datetime.now(UTC)) < timedelta(hours=1)
    assert svix.application.get(made.id) == svix.application.get(uid) == made

    patched = svix.application.patch(uid, ApplicationPatch(name="Acme & sons"))
    assert (patched.name, patched.uid, patched.throttle_rate) == ("Acme & sons", uid, 7)
    assert patched.metadata == {"plan": "gold"}
    assert patched.updated_at >= patched.created_at == made.created_at
    assert svix.application.patch(uid, ApplicationPatch(throttle_rate=None)).throttle_rate is None

    put = svix.application.upsert(uid, ApplicationIn(name="Acme", uid=uid))
    assert (put.id, put.name, put.throttle_rate, put.metadata) == (made.id, "Acme", None, {})

    svix.application.delete(uid)
    error_of(404, "not_found", svix.application.get, made.id)


def test_upsert_makes_an_application_that_is_not_there(svix):
    uid = new_name("acme")
    made = svix.application.upsert(uid, ApplicationIn(name="Acme"))
    assert (made.uid, made.name) == (uid, "Acme")
    assert svix.application.upsert(uid, ApplicationIn(name="Other", uid=uid)).id == made.id


def test_get_or_create_gives_the_one_that_has_the_uid(svix):
    uid = new_name("acme")
    first = svix.application.get_or_create(ApplicationIn(name="Acme", uid=uid))
    second = svix.application.get_or_create(ApplicationIn(name="Another", uid=uid))
    assert second == first


def test_a_uid_is_taken_once(svix):
    uid = new_name("acme")
    svix.application.create(ApplicationIn(name="Acme", uid=uid))
    error = error_of(409, "conflict", svix.application.create, ApplicationIn(name="Acme", uid=uid))
    assert uid in error.detail
    other = svix.application.create(ApplicationIn(name="Other"))
    error_of(409, "conflict", svix.application.patch, other.id, ApplicationPatch(uid=uid))


def test_applications_are_listed_a_page_at_a_time(svix):
    ids = [svix.application.create(ApplicationIn(name=f"app {number}")).id for number in range(5)]
    read_both_ways(svix.application.list, ApplicationListOptions, ids)
    read_both_ways(svix.application.list, ApplicationListOptions, ids, order=Ordering.ASCENDING)
    read_both_ways(svix.application.list, ApplicationListOptions, ids[::-1], order=Ordering.DESCENDING)


# ── endpoints ───────────────────────────────────────────────────────────────────


def test_an_endpoint_is_created_read_changed_and_deleted(svix, app, service):
    made = endpoint_at(
        svix,
        app,
        service,
        uid="main",
        description="all of it",
        event_types=["invoice.paid"],
        channels=["eu"],
        throttle_rate=9,
        metadata={"team": "billing"},
    )
    assert made.id.startswith("ep_")
    assert (made.url, made.uid, made.description) == (f"{service.url}/in", "main", "all of it")
    assert (made.event_types, made.channels, made.throttle_rate) == (["invoice.paid"], ["eu"], 9)
    assert (made.metadata, made.disabled) == ({"team": "billing"}, False)
    assert svix.endpoint.get(app, "main") == svix.endpoint.get(app, made.id) == made

    patched = svix.endpoint.patch(app, "main", EndpointPatch(description="some", event_types=None))
    assert (patched.description, patched.event_types, patched.channels) == ("some", None, ["eu"])
    assert patched.throttle_rate == 9

    put = svix.endpoint.upsert(app, "main", EndpointUpsertIn(url=f"{service.url}/other", uid="main"))
    assert (put.id, put.url, put.description) == (made.id, f"{service.url}/other", "")
    assert (put.channels, put.throttle_rate, put.metadata) == (None, None, {})

    svix.endpoint.delete(app, "main")
    error_of(404, "not_found", svix.endpoint.get, app, made.id)


def test_upsert_makes_an_endpoint_that_is_not_there(svix, app, service):
    made = svix.endpoint.upsert(app, "main", EndpointUpsertIn(url=service.url))
    assert made.uid == "main"
    assert svix.endpoint.get(app, "main") == made
    message = sent(svix, app)
    service.wait_for_calls(1)
    assert service.calls[0].headers["webhook-id"] == message.id
    verified(service.calls[0], svix.endpoint.get_secret(app, "main").key)


def test_endpoints_are_listed_a_page_at_a_time(svix, app, service):
    ids = [endpoint_at(svix, app, service, disabled=True).id for _ in range(5)]
    other = svix.application.create(ApplicationIn(name="Other")).id
    endpoint_at(svix, other, service)

    def listed(options):
        return svix.endpoint.list(app, options)

    pages = read_both_ways(listed, EndpointListOptions, ids, order=Ordering.ASCENDING)
    assert [len(page.data) for page in pages] == [2, 2, 1]
    read_both_ways(listed, EndpointListOptions, ids[::-1], order=Ordering.DESCENDING)


def test_endpoints_are_listed_newest_first_by_default(svix, app, service):
    """As Svix, for which applications and event types are the exception."""
    ids = [endpoint_at(svix, app, service, disabled=True).id for _ in range(3)]
    assert [one.id for one in svix.endpoint.list(app).data] == ids[::-1]


def test_filters_decide_which_endpoints_get_a_message(svix, app, service):
    paid = endpoint_at(svix, app, service, uid="paid", event_types=["invoice.paid"])
    europe = endpoint_at(svix, app, service, uid="eu", channels=["eu", "uk"])
    every = endpoint_at(svix, app, service, uid="every")
    off = endpoint_at(svix, app, service, uid="off", disabled=True)

    def who(message):
        found = svix.message_attempt.list_attempted_destinations(app, message.id)
        return {endpoint.id for endpoint in found.data}

    assert who(sent(svix, app, "invoice.paid")) == {paid.id, every.id}
    assert who(sent(svix, app, "invoice.sent", channels=["uk"])) == {europe.id, every.id}
    assert who(sent(svix, app, "invoice.paid", channels=["us", "eu"])) == {paid.id, europe.id, every.id}
    svix.endpoint.patch(app, off.id, EndpointPatch(disabled=False))
    assert who(sent(svix, app, "invoice.sent")) == {every.id, off.id}


def test_a_secret_of_ones_own_signs(svix, app, service):
    endpoint = endpoint_at(svix, app, service, secret=SECRET)
    assert svix.endpoint.get_secret(app, endpoint.id).key == SECRET
    payload = {"text": "ümlaut ✓", "number": 1.5, "none": None}
    message = sent(svix, app, payload=payload)
    service.wait_for_calls(1)
    call = service.calls[0]
    assert verified(call, SECRET) == payload == message.payload
    assert call.method == "POST"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["webhook-id"] == message.id
    for library in WEBHOOKS:
        with pytest.raises(WebhookVerificationError):
            library(SECRET).verify(call.body + b" ", dict(call.headers))
        with pytest.raises(WebhookVerificationError):
            library("whsec_" + "A" * 32).verify(call.body, dict(call.headers))


def test_a_rotated_secret_verifies_beside_the_new_one(svix, app, service):
    endpoint = endpoint_at(svix, app, service)
    old = svix.endpoint.get_secret(app, endpoint.id).key
    made = svix.endpoint.rotate_secret(app, endpoint.id, EndpointSecretRotateIn())
    new = svix.endpoint.get_secret(app, endpoint.id).key
    assert made.key == new != old
    sent(svix, app)
    service.wait_for_calls(1)
    verified(service.calls[0], old, new)

    svix.endpoint.rotate_secret(app, endpoint.id, EndpointSecretRotateIn(key=SECRET))
    sent(svix, app)
    service.wait_for_calls(2)
    verified(service.calls[1], old, new, SECRET)


def test_a_rotated_secret_without_grace_verifies_no_more(svix, app, service):
    endpoint = endpoint_at(svix, app, service)
    old = svix.endpoint.get_secret(app, endpoint.id).key
    given = EndpointSecretRotateIn(key=SECRET, grace_period_seconds=0)
    assert svix.endpoint.rotate_secret(app, endpoint.id, given).key == SECRET
    sent(svix, app)
    service.wait_for_calls(1)
    verified(service.calls[0], SECRET)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(service.calls[0].body, dict(service.calls[0].headers))


def test_headers_are_set_sent_and_changed_and_secret_ones_are_named_only(svix, app, service):
    endpoint = endpoint_at(svix, app, service, headers={"X-Team": "billing"})
    assert svix.endpoint.get_headers(app, endpoint.id).headers == {"X-Team": "billing"}
    given = {"X-Plan": "gold", "Authorization": "Bearer of-theirs", "X-Api-Key": "k-1"}
    svix.endpoint.set_headers(app, endpoint.id, EndpointHeadersIn(headers=given))
    shown = svix.endpoint.get_headers(app, endpoint.id)
    assert shown.headers == {"X-Plan": "gold"}
    assert sorted(shown.sensitive) == ["Authorization", "X-Api-Key"]
    sent(svix, app)
    service.wait_for_calls(1)
    headers = service.calls[0].headers
    assert "x-team" not in headers
    assert [headers[name] for name in ("x-plan", "authorization", "x-api-key")] == list(given.values())

    svix.endpoint.patch_headers(
        app, endpoint.id, EndpointHeadersPatchIn(headers={"x-plan": "lead"}, delete_headers=["X-API-KEY"])
    )
    shown = svix.endpoint.get_headers(app, endpoint.id)
    assert (shown.headers, shown.sensitive) == ({"x-plan": "lead"}, ["Authorization"])
    sent(svix, app)
    service.wait_for_calls(2)
    headers = service.calls[1].headers
    assert (headers["x-plan"], headers["authorization"]) == ("lead", "Bearer of-theirs")
    assert "x-api-key" not in headers
    verified(service.calls[1], svix.endpoint.get_secret(app, endpoint.id).key)


def test_headers_outlive_an_upsert_that_names_none(svix, app, service):
    endpoint_at(svix, app, service, uid="main", headers={"X-Team": "billing"})
    svix.endpoint.upsert(app, "main", EndpointUpsertIn(url=service.url, uid="main"))
    assert svix.endpoint.get_headers(app, "main").headers == {"X-Team": "billing"}


def test_recover_sends_again_what_has_failed(svix, app, service):
    service.answer = lambda call: (500, {"error": "down"})
    endpoint = endpoint_at(svix, app, service)
    begin = datetime.now(UTC) - timedelta(minutes=1)
    failed = [sent(svix, app, payload={"n": number}).id for number in range(3)]
    for message in failed:
        attempts_of(svix, app, message)
    service.answer = lambda call: {"ok": True}
    good = sent(svix, app).id
    attempts_of(svix, app, good)
    service.forget()

    task = svix.endpoint.recover(app, endpoint.id, RecoverIn(since=begin))
    assert (task.status, task.task) == ("finished", "endpoint.recover")
    assert task.id.startswith("qtask_")
    service.wait_for_calls(3)
    for message in failed:
        newest = attempts_of(svix, app, message, 2)[0]
        assert (newest.status, newest.trigger_type) == (SUCCESS, MANUAL)
    assert sorted(call.headers["webhook-id"] for call in service.calls) == sorted(failed)


def test_recover_heeds_its_window(svix, app, service):
    service.answer = lambda call: (500, {})
    endpoint = endpoint_at(svix, app, service)
    message = sent(svix, app)
    attempts_of(svix, app, message.id)
    window = RecoverIn(
        since=message.timestamp - timedelta(hours=2), until=message.timestamp - timedelta(hours=1)
    )
    svix.endpoint.recover(app, endpoint.id, window)
    assert svix.endpoint.get_stats(app, endpoint.id).fail == 1
    assert svix.endpoint.get_stats(app, endpoint.id).pending == 0


def test_replay_missing_sends_what_an_endpoint_never_got(svix, app, service):
    begin = datetime.now(UTC) - timedelta(minutes=1)
    missed = sent(svix, app, "invoice.paid", {"n": 1})
    sent(svix, app, "invoice.sent", {"n": 2})
    endpoint = endpoint_at(svix, app, service, event_types=["invoice.paid"])
    got = sent(svix, app, "invoice.paid", {"n": 3})
    attempts_of(svix, app, got.id)
    task = svix.endpoint.replay_missing(app, endpoint.id, ReplayIn(since=begin))
    assert (task.status, task.task) == ("finished", "endpoint.replay")
    (attempt,) = attempts_of(svix, app, missed.id)
    assert (attempt.status, attempt.trigger_type) == (SUCCESS, MANUAL)
    assert [call.headers["webhook-id"] for call in service.calls] == [got.id, missed.id]


def test_stats_count_deliveries_by_state(svix, app, service):
    service.answer = lambda call: (200 if json.loads(call.body)["good"] else 500, {})
    endpoint = endpoint_at(svix, app, service)
    for good in (True, False, True):
        attempts_of(svix, app, sent(svix, app, payload={"good": good}).id)
    stats = svix.endpoint.get_stats(app, endpoint.id)
    assert (stats.success, stats.fail, stats.pending, stats.sending) == (2, 1, 0, 0)
    past = EndpointGetStatsOptions(
        since=datetime.now(UTC) - timedelta(hours=2), until=datetime.now(UTC) - timedelta(hours=1)
    )
    empty = svix.endpoint.get_stats(app, endpoint.id, past)
    assert (empty.success, empty.fail) == (0, 0)


def test_an_example_goes_to_one_endpoint_whatever_it_filters(svix, app, service):
    name = new_name("invoice")
    svix.event_type.create(EventTypeIn(name=name, description="An invoice", schemas=SCHEMA))
    endpoint = endpoint_at(svix, app, service, event_types=["other"])
    endpoint_at(svix, app, service)
    first = svix.endpoint.send_example(app, endpoint.id, EventExampleIn(event_type=name))
    assert (first.payload, first.event_type) == ({"id": "in_1"}, name)
    second = svix.endpoint.send_example(app, endpoint.id, EventExampleIn(event_type=name, example_index=1))
    assert second.payload == {"id": "in_2"}
    service.wait_for_calls(2)
    for message in (first, second):
        (attempt,) = attempts_of(svix, app, message.id)
        assert attempt.endpoint_id == endpoint.id
    verified(service.calls[0], svix.endpoint.get_secret(app, endpoint.id).key)
    assert len(service.calls) == 2


# ── event types ─────────────────────────────────────────────────────────────────


def test_an_event_type_is_created_read_changed_archived_and_deleted(svix):
    name = new_name("invoice")
    made = svix.event_type.create(
        EventTypeIn(name=name, description="An invoice", schemas=SCHEMA, group_name="billing")
    )
    assert (made.name, made.description, made.schemas) == (name, "An invoice", SCHEMA)
    assert (made.archived, made.deprecated, made.group_name) == (False, False, "billing")
    assert svix.event_type.get(name) == made
    error_of(409, "conflict", svix.event_type.create, EventTypeIn(name=name, description=""))

    patched = svix.event_type.patch(name, EventTypePatch(deprecated=True))
    assert (patched.deprecated, patched.description, patched.schemas) == (True, "An invoice", SCHEMA)
    put = svix.event_type.upsert(name, EventTypeUpsertIn(description="Another"))
    assert (put.description, put.deprecated, put.schemas, put.group_name) == ("Another", False, None, None)
    assert put.created_at == made.created_at

    svix.event_type.delete(name)
    assert svix.event_type.get(name).archived is True
    assert name not in names_of(svix)
    assert name in names_of(svix, include_archived=True)
    again = svix.event_type.create(EventTypeIn(name=name, description="Again"))
    assert (again.archived, again.description) == (False, "Again")
    svix.event_type.delete(name, EventTypeDeleteOptions(expunge=True))
    error_of(404, "not_found", svix.event_type.get, name)


def names_of(svix, **options):
    pages = pages_of(svix.event_type.list, EventTypeListOptions, limit=250, **options)
    return [one.name for page in pages for one in page.data]


def test_upsert_makes_an_event_type_that_is_not_there(svix):
    name = new_name("invoice")
    assert svix.event_type.upsert(name, EventTypeUpsertIn(description="An invoice")).name == name
    assert name in names_of(svix)


def test_event_types_are_listed_a_page_at_a_time_with_schemas_if_wanted(svix):
    names = [f"{new_name('listed')}.{letter}" for letter in "abcde"]
    for name in names[::-1]:
        svix.event_type.create(EventTypeIn(name=name, description="", schemas=SCHEMA))
    names.sort()
    read_both_ways(svix.event_type.list, EventTypeListOptions, names, name="name")
    read_both_ways(
        svix.event_type.list, EventTypeListOptions, names[::-1], order=Ordering.DESCENDING, name="name"
    )
    whole = svix.event_type.list(EventTypeListOptions(limit=250, with_content=True)).data
    plain = svix.event_type.list(EventTypeListOptions(limit=250, with_content=False)).data
    assert [one.schemas for one in whole if one.name in names] == [SCHEMA] * 5
    assert [one.schemas for one in plain if one.name in names] == [None] * 5


# ── messages ────────────────────────────────────────────────────────────────────


def test_a_message_is_created_and_read_by_either_id(svix, app):
    made = sent(svix, app, event_id="invoice-7", channels=["eu"], tags=["red"])
    assert made.id.startswith("msg_")
    assert (made.event_id, made.event_type, made.payload) == ("invoice-7", "invoice.paid", {"id": "in_1"})
    assert (made.channels, made.tags) == (["eu"], ["red"])
    whole = MessageGetOptions(with_content=True)
    assert svix.message.get(app, made.id, whole) == svix.message.get(app, "invoice-7", whole) == made
    bare = svix.message.get(app, made.id)
    assert (bare.id, bare.payload) == (made.id, {})
    unseen = svix.message.create(app, MessageIn(event_type="a", payload={"id": 1}))
    assert unseen.payload == {}
    assert svix.message.get(app, unseen.id, whole).payload == {"id": 1}


def test_a_message_can_make_its_application(svix, service):
    uid = new_name("acme")
    made = svix.message.create(
        uid, MessageIn(event_type="a.b", payload={}, application=ApplicationIn(name="Acme", uid=uid))
    )
    assert svix.application.get(uid).name == "Acme"
    assert svix.message.get(uid, made.id).event_type == "a.b"


def test_messages_are_listed_newest_first_a_page_at_a_time(svix, app):
    ids = [sent(svix, app, payload={"n": number}).id for number in range(5)]

    def listed(options):
        return svix.message.list(app, options)

    pages = read_both_ways(listed, MessageListOptions, ids[::-1])
    assert [len(page.data) for page in pages] == [2, 2, 1]


def test_messages_are_found_by_type_channel_tag_and_time(svix, app):
    first = sent(svix, app, "invoice.paid", channels=["eu"], tags=["red", "hot"])
    second = sent(svix, app, "invoice.sent", channels=["eu", "us"])
    third = sent(svix, app, "user.made", tags=["hot"])

    def found(**options):
        return [one.id for one in svix.message.list(app, MessageListOptions(**options)).data]

    assert found() == [third.id, second.id, first.id]
    assert found(event_types=["invoice.paid", "user.made"]) == [third.id, first.id]
    assert found(channel="eu") == [second.id, first.id]
    assert found(tag="hot") == [third.id, first.id]
    assert found(channel="e") == []
    assert found(before=first.timestamp - timedelta(hours=1)) == []
    assert len(found(after=first.timestamp - timedelta(hours=1))) == 3
    assert found(after=first.timestamp + timedelta(hours=1)) == []
    whole = svix.message.list(app, MessageListOptions(with_content=True)).data
    assert whole[0].payload == {"id": "in_1"}
    assert svix.message.list(app).data[0].payload == {}


def test_an_expunged_message_has_no_content_and_is_not_sent_again(svix, app, service):
    endpoint = endpoint_at(svix, app, service)
    message = sent(svix, app)
    attempts_of(svix, app, message.id)
    svix.message.expunge_content(app, message.id)
    found = svix.message.get(app, message.id, MessageGetOptions(with_content=True))
    assert (found.payload, found.event_type) == ({}, "invoice.paid")
    error_of(400, "bad_request", svix.message_attempt.resend, app, message.id, endpoint.id)


def test_a_raw_payload_is_sent_as_it_is(svix, app, service):
    """`message_in_raw` of the SDK: the payload is in `transformationsParams`."""
    endpoint_at(svix, app, service, secret=SECRET)
    svix.message.create(app, message_in_raw("invoice.paid", '{ "id" : 1 }'))
    service.wait_for_calls(1)
    assert service.calls[0].body == b'{ "id" : 1 }'
    verified(service.calls[0], SECRET)


def test_a_raw_payload_that_is_not_taken_is_refused_by_name(svix, app, service):
    """What cannot be sent is not replaced by an empty object."""
    given = message_in_raw("invoice.paid", "<id>1</id>", "application/xml")
    assert mistakes_of(svix.message.create, app, given)[0][:2] == ["body", "transformationsParams"]


# ── attempts ────────────────────────────────────────────────────────────────────


def test_an_attempt_is_logged_with_what_was_answered(svix, app, service):
    service.answer = lambda call: (418, {"error": "teapot"})
    endpoint = endpoint_at(svix, app, service)
    message = sent(svix, app)
    (attempt,) = attempts_of(svix, app, message.id, with_content=True)
    assert attempt.id.startswith("atmpt_")
    assert (attempt.msg_id, attempt.endpoint_id) == (message.id, endpoint.id)
    assert (attempt.status, attempt.status_text, attempt.trigger_type) == (FAIL, "fail", SCHEDULED)
    assert attempt.response_status_code == 418
    assert json.loads(attempt.response) == {"error": "teapot"}
    assert attempt.url == f"{service.url}/in"
    assert attempt.response_duration_ms >= 0
    assert svix.message_attempt.get(app, message.id, attempt.id) == attempt
    (bare,) = svix.message_attempt.list_by_msg(app, message.id).data
    assert bare.response == ""

    svix.message_attempt.expunge_content(app, message.id, attempt.id)
    gone = svix.message_attempt.get(app, message.id, attempt.id)
    assert (gone.response, gone.response_status_code) == ("", 418)


def test_a_message_is_sent_again(svix, app, service):
    endpoint = endpoint_at(svix, app, service)
    message = sent(svix, app, event_id="invoice-7")
    attempts_of(svix, app, message.id)
    svix.message_attempt.resend(app, "invoice-7", endpoint.id)
    second, first = attempts_of(svix, app, "invoice-7", 2)
    assert (first.trigger_type, second.trigger_type) == (SCHEDULED, MANUAL)
    assert [call.headers["webhook-id"] for call in service.calls] == [message.id] * 2
    for call in service.calls:
        verified(call, svix.endpoint.get_secret(app, endpoint.id).key)


def test_attempts_are_listed_newest_first_a_page_at_a_time(svix, app, service):
    endpoint = endpoint_at(svix, app, service)
    message = sent(svix, app)
    ids = [attempts_of(svix, app, message.id)[0].id]
    for number in range(2, 6):
        svix.message_attempt.resend(app, message.id, endpoint.id)
        ids.append(attempts_of(svix, app, message.id, number)[0].id)

    def by_message(options):
        return svix.message_attempt.list_by_msg(app, message.id, options)

    def by_endpoint(options):
        return svix.message_attempt.list_by_endpoint(app, endpoint.id, options)

    read_both_ways(by_message, MessageAttemptListByMsgOptions, ids[::-1])
    read_both_ways(by_endpoint, MessageAttemptListByEndpointOptions, ids[::-1])


def test_attempts_are_found_by_status_class_type_channel_tag_time_and_endpoint(svix, app, service):
    service.answer = lambda call: (200 if json.loads(call.body)["good"] else 404, {})
    endpoint = endpoint_at(svix, app, service, uid="main")
    dead = svix.endpoint.create(app, EndpointIn(url="http://127.0.0.1:1/", event_types=["dead"]))
    good = sent(svix, app, "invoice.paid", {"good": True}, channels=["eu"], tags=["red"])
    bad = sent(svix, app, "invoice.sent", {"good": False})
    none = sent(svix, app, "dead", {"good": True})
    for message, number in ((good, 1), (bad, 1), (none, 2)):
        attempts_of(svix, app, message.id, number)

    def found(**options):
        page = svix.message_attempt.list_by_endpoint(
            app, "main", MessageAttemptListByEndpointOptions(**options)
        )
        return [one.msg_id for one in page.data]

    assert sorted(found()) == sorted([none.id, bad.id, good.id])
    assert found(status=FAIL) == [bad.id]
    assert found(status_code_class=StatusCodeClass.CODE4XX) == [bad.id]
    assert found(event_types=["invoice.paid", "invoice.sent"], status=SUCCESS) == [good.id]
    assert found(channel="eu") == [good.id]
    assert found(tag="red") == [good.id]
    assert found(before=good.timestamp - timedelta(hours=1)) == []
    assert found(after=good.timestamp + timedelta(hours=1)) == []
    assert len(found(after=good.timestamp - timedelta(hours=1))) == 3
    (refused,) = svix.message_attempt.list_by_endpoint(
        app, dead.id, MessageAttemptListByEndpointOptions(status_code_class=StatusCodeClass.CODE_NONE)
    ).data
    assert (refused.msg_id, refused.response_status_code) == (none.id, 0)
    (one,) = svix.message_attempt.list_by_msg(
        app, none.id, MessageAttemptListByMsgOptions(endpoint_id=endpoint.id)
    ).data
    assert one.endpoint_id == endpoint.id
    (with_message,) = svix.message_attempt.list_by_endpoint(
        app, "main", MessageAttemptListByEndpointOptions(with_msg=True, status=FAIL)
    ).data
    assert with_message.msg.id == bad.id


def test_attempted_messages_are_listed_with_their_state(svix, app, service):
    service.answer = lambda call: (200 if json.loads(call.body)["n"] else 500, {})
    endpoint = endpoint_at(svix, app, service)
    ids = []
    for number in range(5):
        ids.append(sent(svix, app, payload={"n": number}, tags=[f"t{number}"]).id)
        attempts_of(svix, app, ids[-1])

    def listed(options):
        return svix.message_attempt.list_attempted_messages(app, endpoint.id, options)

    pages = read_both_ways(listed, MessageAttemptListAttemptedMessagesOptions, ids[::-1])
    found = [one for page in pages for one in page.data]
    assert [one.status for one in found] == [SUCCESS] * 4 + [FAIL]
    assert [one.status_text for one in found] == ["success"] * 4 + ["fail"]
    assert all(one.next_attempt is None for one in found)
    failed = listed(MessageAttemptListAttemptedMessagesOptions(status=FAIL, with_content=True)).data
    assert [(one.id, one.payload) for one in failed] == [(ids[0], {"n": 0})]
    tagged = listed(MessageAttemptListAttemptedMessagesOptions(tag="t3")).data
    assert [one.id for one in tagged] == [ids[3]]


def test_attempted_destinations_are_listed_with_their_state(svix, app, service):
    ids = [endpoint_at(svix, app, service, uid=f"e{number}").id for number in range(5)]
    message = sent(svix, app)
    attempts_of(svix, app, message.id, 5)

    def listed(options):
        return svix.message_attempt.list_attempted_destinations(app, message.id, options)

    pages = read_both_ways(listed, MessageAttemptListAttemptedDestinationsOptions, ids)
    found = [one for page in pages for one in page.data]
    assert [one.status for one in found] == [SUCCESS] * 5
    assert [one.uid for one in found] == [f"e{number}" for number in range(5)]


def test_a_failed_message_waits_for_its_next_attempt(svix, hooks, app, service):
    service.answer = lambda call: (500, {})
    endpoint = hooks.make(f"/app/{app}/endpoint", {"url": service.url, "schedule": [0, 3600]})
    message = sent(svix, app)
    attempts_of(svix, app, message.id)
    (waiting,) = svix.message_attempt.list_attempted_messages(app, endpoint["id"]).data
    assert (waiting.status, waiting.status_text) == (PENDING, "pending")
    assert waiting.next_attempt > datetime.now(UTC) + timedelta(minutes=30)
    (destination,) = svix.message_attempt.list_attempted_destinations(app, message.id).data
    assert (destination.status, destination.next_attempt) == (PENDING, waiting.next_attempt)
    assert svix.endpoint.get_stats(app, endpoint["id"]).pending == 1


# ── paging ──────────────────────────────────────────────────────────────────────


def test_whoever_follows_prev_iterator_comes_to_an_end(svix, app):
    """As Svix: `done` says whether there is more in the direction of the iterator."""
    ids = [sent(svix, app, payload={"n": number}).id for number in range(6)][::-1]
    pages = pages_of(lambda found: svix.message.list(app, found), MessageListOptions)
    last = pages[-1]
    found, page = [], last
    for _ in range(len(ids)):
        options = MessageListOptions(limit=2, iterator=page.prev_iterator)
        page = svix.message.list(app, options)
        found = [one.id for one in page.data] + found
        if page.done:
            break
    assert page.done
    assert found == ids[:4]


def test_a_first_page_has_a_prev_iterator_by_which_newer_ones_are_found(svix, app):
    """As Svix: its pages that have something in them have both iterators."""
    sent(svix, app)
    page = svix.message.list(app)
    assert page.done
    assert page.prev_iterator is not None
    newer = sent(svix, app)
    found = svix.message.list(app, MessageListOptions(iterator=page.prev_iterator))
    assert [one.id for one in found.data] == [newer.id]


def test_an_iterator_of_the_last_page_finds_what_came_later(svix, app, service):
    endpoint_at(svix, app, service)
    options = EndpointListOptions(order=Ordering.ASCENDING)
    page = svix.endpoint.list(app, options)
    assert page.done
    later = endpoint_at(svix, app, service)
    found = svix.endpoint.list(app, replace(options, iterator=page.iterator))
    assert [one.id for one in found.data] == [later.id]


def test_event_types_whose_names_begin_with_a_dash_are_listed_to_their_end(tmp_path):
    """An iterator with a dash before it goes back: a name with one is no such iterator."""
    service = HooksService(tmp_path)
    names = ["-a", "-b", "--c", "a"]
    try:
        with client_of(service) as svix:
            for name in names:
                svix.event_type.create(EventTypeIn(name=name, description=""))
            found, iterator = [], None
            for _ in range(len(names) + 1):
                page = svix.event_type.list(EventTypeListOptions(limit=1, iterator=iterator))
                found += [one.name for one in page.data]
                if page.done:
                    break
                iterator = page.iterator
    finally:
        service.stop()
    assert sorted(found) == sorted(names)


def test_an_empty_list_is_done(svix, app):
    for page in (svix.endpoint.list(app), svix.message.list(app)):
        assert (page.data, page.done) == ([], True)


# ── idempotency keys ────────────────────────────────────────────────────────────


def test_the_same_key_gets_the_same_answer_and_does_nothing(svix, app, service):
    endpoint_at(svix, app, service)
    given = MessageIn(event_type="invoice.paid", payload={"id": "in_1"})
    options = MessageCreateOptions(idempotency_key=new_name("key"))
    first = svix.message.create(app, given, options)
    assert svix.message.create(app, given, options) == first
    other = sent(svix, app)
    attempts_of(svix, app, other.id)
    attempts_of(svix, app, first.id)
    whole = MessageCreateOptions(idempotency_key=options.idempotency_key, with_content=True)
    assert svix.message.create(app, given, whole).payload == {"id": "in_1"}
    assert len(svix.message.list(app).data) == 2
    assert sorted(call.headers["webhook-id"] for call in service.calls) == sorted([first.id, other.id])


def test_the_same_key_gets_the_same_thing_of_every_kind(svix, app, service):
    key = new_name("key")
    application = ApplicationIn(name="Acme")
    first = svix.application.create(application, ApplicationCreateOptions(idempotency_key=f"a-{key}"))
    assert svix.application.create(application, ApplicationCreateOptions(idempotency_key=f"a-{key}")) == first
    endpoint, options = EndpointIn(url=service.url), EndpointCreateOptions(idempotency_key=f"e-{key}")
    assert svix.endpoint.create(app, endpoint, options) == svix.endpoint.create(app, endpoint, options)
    assert len(svix.endpoint.list(app).data) == 1
    kind = EventTypeIn(name=new_name("invoice"), description="")
    options = EventTypeCreateOptions(idempotency_key=f"t-{key}")
    assert svix.event_type.create(kind, options) == svix.event_type.create(kind, options)


def test_a_key_of_another_request_is_refused(svix, app):
    options = MessageCreateOptions(idempotency_key=new_name("key"))
    svix.message.create(app, MessageIn(event_type="invoice.paid", payload={"n": 1}), options)
    other = MessageIn(event_type="invoice.paid", payload={"n": 2})
    ((*_, field),) = mistakes_of(svix.message.create, app, other, options)
    assert field == "idempotency-key"
    assert len(svix.message.list(app).data) == 1


def test_an_event_id_is_taken_once_even_with_a_new_key(svix, app):
    sent(svix, app, event_id="invoice-7")
    given = MessageIn(event_type="invoice.paid", payload={}, event_id="invoice-7")
    error = error_of(409, "conflict", svix.message.create, app, given)
    assert "invoice-7" in error.detail


# ── tokens and errors ───────────────────────────────────────────────────────────


def test_a_token_of_an_application_opens_that_one_only(svix, hooks, app, service):
    other = svix.application.create(ApplicationIn(name="Other", uid=new_name("other")))
    theirs = endpoint_at(svix, other.id, service)
    secret_message = sent(svix, other.id)
    token = hooks.make("/token", {"applicationId": app, "name": "for Acme"})["token"]
    with client_of(hooks, token) as own:
        opens_one_only(svix, own, app, other, theirs, secret_message, service)


def opens_one_only(svix, own, app, other, theirs, secret_message, service):
    assert [one.id for one in own.application.list().data] == [app]
    endpoint = endpoint_at(own, app, service)
    message = sent(own, app)
    attempts_of(own, app, message.id)
    assert own.endpoint.get_secret(app, endpoint.id).key

    for name in (other.id, other.uid):
        error_of(404, "not_found", own.application.get, name)
        error_of(404, "not_found", own.application.patch, name, ApplicationPatch(name="Mine"))
        error_of(404, "not_found", own.endpoint.list, name)
        error_of(404, "not_found", own.endpoint.get_secret, name, theirs.id)
        error_of(404, "not_found", own.endpoint.delete, name, theirs.id)
        error_of(404, "not_found", own.message.list, name)
        error_of(404, "not_found", own.message.get, name, secret_message.id)
        error_of(404, "not_found", sent, own, name)
        error_of(404, "not_found", own.message_attempt.list_by_msg, name, secret_message.id)
    # Through its own application it does not see theirs, either.
    error_of(404, "not_found", own.endpoint.get, app, theirs.id)
    error_of(404, "not_found", own.message.get, app, secret_message.id)
    error_of(404, "not_found", own.message_attempt.resend, app, secret_message.id, endpoint.id)
    error_of(404, "not_found", own.message_attempt.resend, app, message.id, theirs.id)

    error_of(403, "forbidden", own.application.create, ApplicationIn(name="Mine"))
    error_of(403, "forbidden", own.application.delete, app)
    error_of(403, "forbidden", own.event_type.create, EventTypeIn(name="mine", description=""))
    assert svix.application.get(other.id).name == "Other"


@pytest.mark.parametrize("token", ["wrong", "yt_" + "A" * 43, ADMIN_TOKEN + "x"])
def test_a_token_that_is_not_known_opens_nothing(hooks, token):
    with client_of(hooks, token) as svix:
        error_of(401, "authentication_failed", svix.application.list)


def test_a_wrong_field_is_named(svix, app):
    assert mistakes_of(svix.message.create, app, MessageIn(event_type="a b", payload={})) == [
        ["body", "eventType"]
    ]
    assert mistakes_of(svix.endpoint.create, app, EndpointIn(url="ftp://example.com")) == [["body", "url"]]
    assert mistakes_of(svix.application.create, ApplicationIn(name="")) == [["body", "name"]]


def test_what_is_not_there_is_404(svix, app):
    error_of(404, "not_found", svix.application.get, "app_none")
    error_of(404, "not_found", svix.endpoint.get, app, "ep_none")
    error_of(404, "not_found", svix.message.get, app, "msg_none")
    error_of(404, "not_found", svix.message_attempt.get, app, sent(svix, app).id, "atmpt_none")
    error_of(404, "not_found", svix.event_type.get, "none")
    error_of(404, "not_found", sent, svix, "app_none")


def test_the_service_is_healthy(svix):
    svix.health.get()


async def test_the_asynchronous_sdk_sends_too(hooks, service):
    svix = SvixAsync(ADMIN_TOKEN, SvixOptions(server_url=hooks.url, retry_schedule=[]))
    async with svix._httpx_client:
        app = (await svix.application.create(ApplicationIn(name="Acme"))).id
        endpoint = await svix.endpoint.create(app, EndpointIn(url=service.url))
        message = await svix.message.create(app, MessageIn(event_type="a.b", payload={"n": 1}))
        secret = (await svix.endpoint.get_secret(app, endpoint.id)).key
    service.wait_for_calls(1)
    assert service.calls[0].headers["webhook-id"] == message.id
    verified(service.calls[0], secret)
