"""Operator events: what happens to deliveries, as messages of an application of their own.

    endpoint.failing             nothing but failure for days: it will be disabled
    endpoint.disabled            it was
    message.attempt.exhausted    a message has become a dead letter

The application has the uid `yelpaze.operator`. Its endpoints come from the settings (`operator.endpoints`),
or through the API like any other's. What happens to them makes no events.
"""

import msgspec

from yelpaze.hooks.context import Access, Context
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.log.applications import OPERATOR_UID, create_application
from yelpaze.hooks.log.endpoints import create_endpoint, delete_endpoint
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.settings import OperatorEndpoint
from yelpaze.hooks.values import ApplicationIn, EndpointIn, MessageIn
from yelpaze.model.errors import InputError
from yelpaze.store.session import Session

_PREFIX = "settings."


def set_up_operator(session: Session, context: Context) -> str:
    """Make the application, and its endpoints as the settings have them; return its id.

    Raises InputError for an endpoint that cannot be.
    """
    given = ApplicationIn(name="Operator events of Yelpaze", uid=OPERATOR_UID)
    app, _ = create_application(session, context, given, get_if_exists=True)
    wanted = context.settings.operator.endpoints
    rows = session.rows("SELECT uid FROM endpoint WHERE app_id = ? AND uid IS NOT NULL", app.id)
    for (uid,) in rows:
        if uid.startswith(_PREFIX):
            delete_endpoint(session, context, app, uid)
    for name, endpoint in wanted.items():
        try:
            create_endpoint(session, context, app, _endpoint(name, endpoint), trusted=True)
        except HooksError as error:
            raise InputError(f"operator.endpoints.{name}.{error}") from None
    return app.id


def _endpoint(name: str, given: OperatorEndpoint) -> EndpointIn:
    return EndpointIn(
        kind=given.kind,
        url=given.url,
        options=given.options,
        uid=f"{_PREFIX}{name}",
        secret=given.secret or None,
        event_types=given.event_types or None,
        channels=given.channels or None,
    )


def operator_message(app_id: str, event_type: str, payload: dict[str, object]) -> NewMessage:
    """An event as a message."""
    body = {"type": event_type, "data": payload}
    given = MessageIn(event_type=event_type, payload=msgspec.Raw(msgspec.json.encode(body)))
    return NewMessage(app_id, Access(), given)
