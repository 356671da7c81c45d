"""Operator events: what happens to deliveries, as messages of an application of their own.

    endpoint.failing             nothing but failure for days: it will be disabled
    endpoint.disabled            it was
    message.attempt.exhausted    a message has become a dead letter

The application has the uid `yelpaze.operator`. Its endpoints come from the settings (`operator.endpoints`),
or through the API like any other's. What happens to them makes no events.
"""

import msgspec

from yelpaze.hooks.context import Access, Context
from yelpaze.hooks.log.applications import OPERATOR_UID
from yelpaze.hooks.log.configured import reconcile
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.settings import OperatorEndpoint
from yelpaze.hooks.values import ApplicationIn, EndpointIn, MessageIn
from yelpaze.store.session import Session


def set_up_operator(session: Session, context: Context) -> str:
    """Make the application, and its endpoints as the settings have them; return its id.

    Raises InputError for an endpoint that cannot be.
    """
    own = ApplicationIn(name="Operator events of Yelpaze", uid=OPERATOR_UID)
    wanted = {name: _endpoint(given) for name, given in context.settings.operator.endpoints.items()}
    return reconcile(session, context, own, wanted, "operator.endpoints.").id


def _endpoint(given: OperatorEndpoint) -> EndpointIn:
    return EndpointIn(
        kind=given.kind,
        url=given.url,
        options=given.options,
        secret=str(given.secret) or None,
        event_types=given.event_types or None,
        channels=given.channels or None,
    )


def operator_message(app_id: str, event_type: str, payload: dict[str, object]) -> NewMessage:
    """An event as a message."""
    body = {"type": event_type, "data": payload}
    given = MessageIn(event_type=event_type, payload=msgspec.Raw(msgspec.json.encode(body)))
    return NewMessage(app_id, Access(), given)
