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
from yelpaze.hooks.log.applications import OPERATOR_UID, Application, create_application
from yelpaze.hooks.log.endpoints import (
    create_endpoint,
    delete_endpoint,
    patch_endpoint,
    rotate_secret,
    secrets_of,
)
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.settings import OperatorEndpoint
from yelpaze.hooks.values import (
    ApplicationIn,
    EndpointIn,
    EndpointPatch,
    EndpointSecretRotateIn,
    MessageIn,
)
from yelpaze.model.errors import InputError
from yelpaze.store.session import Session

_PREFIX = "settings."


def set_up_operator(session: Session, context: Context) -> str:
    """Make the application, and its endpoints as the settings have them; return its id.

    Raises InputError for an endpoint that cannot be.
    """
    own = ApplicationIn(name="Operator events of Yelpaze", uid=OPERATOR_UID)
    app, _ = create_application(session, context, own, get_if_exists=True)
    wanted = {f"{_PREFIX}{name}": given for name, given in context.settings.operator.endpoints.items()}
    rows = session.rows("SELECT uid FROM endpoint WHERE app_id = ? AND uid IS NOT NULL", app.id)
    known = {uid for (uid,) in rows if uid.startswith(_PREFIX)}
    for uid in known - set(wanted):
        delete_endpoint(session, context, app, uid)
    for uid, given in wanted.items():
        try:
            if uid in known:
                _bring_up_to_date(session, context, app, uid, given)
            else:
                create_endpoint(session, context, app, _endpoint(uid, given), trusted=True)
        except HooksError as error:
            name = uid.removeprefix(_PREFIX)
            raise InputError(f"operator.endpoints.{name}.{error}") from None
    return app.id


def _bring_up_to_date(
    session: Session, context: Context, app: Application, uid: str, given: OperatorEndpoint
) -> None:
    """Change what differs; what waits for the endpoint stays."""
    fields = _endpoint(uid, given)
    patch = EndpointPatch(
        kind=fields.kind,
        url=fields.url,
        options=fields.options,
        event_types=fields.event_types,
        channels=fields.channels,
    )
    endpoint = patch_endpoint(session, context, app, uid, patch, trusted=True)
    secrets = secrets_of(session, context, [endpoint.id]).get(endpoint.id, ())
    if fields.secret is not None and [fields.secret] != [one.text for one in secrets[:1]]:
        rotate = EndpointSecretRotateIn(key=fields.secret, grace_period_seconds=0)
        rotate_secret(session, context, endpoint, rotate)


def _endpoint(uid: str, given: OperatorEndpoint) -> EndpointIn:
    return EndpointIn(
        kind=given.kind,
        url=given.url,
        options=given.options,
        uid=uid,
        secret=str(given.secret) or None,
        event_types=given.event_types or None,
        channels=given.channels or None,
    )


def operator_message(app_id: str, event_type: str, payload: dict[str, object]) -> NewMessage:
    """An event as a message."""
    body = {"type": event_type, "data": payload}
    given = MessageIn(event_type=event_type, payload=msgspec.Raw(msgspec.json.encode(body)))
    return NewMessage(app_id, Access(), given)
