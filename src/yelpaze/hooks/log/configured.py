"""Endpoints that stand in an operator's own settings: brought up to date at each start or reload.

Their uids begin with `settings.`, and their addresses are not guarded. What waits for one stays when it is
changed.
"""

from collections.abc import Mapping

from yelpaze.hooks.context import Context
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.log.applications import Application, create_application
from yelpaze.hooks.log.endpoints import (
    create_endpoint,
    delete_endpoint,
    patch_endpoint,
    rotate_secret,
    secrets_of,
)
from yelpaze.hooks.values import ApplicationIn, EndpointIn, EndpointPatch, EndpointSecretRotateIn
from yelpaze.model.errors import InputError
from yelpaze.store.session import Session

_PREFIX = "settings."


def reconcile(
    session: Session, context: Context, own: ApplicationIn, wanted: Mapping[str, EndpointIn], place: str
) -> Application:
    """Make the application, and give it these endpoints by name, and no others of settings.

    `place` is where they stand, as in `alerting.`. Raises InputError for an endpoint that cannot be.
    """
    app, _ = create_application(session, context, own, get_if_exists=True)
    rows = session.rows("SELECT uid FROM endpoint WHERE app_id = ? AND uid IS NOT NULL", app.id)
    known = {uid for (uid,) in rows if uid.startswith(_PREFIX)}
    for uid in known - {f"{_PREFIX}{name}" for name in wanted}:
        delete_endpoint(session, context, app, uid)
    for name, given in wanted.items():
        uid = f"{_PREFIX}{name}"
        try:
            if uid in known:
                _bring_up_to_date(session, context, app, uid, given)
            else:
                fields = {one: getattr(given, one) for one in EndpointIn.__struct_fields__}
                create_endpoint(session, context, app, EndpointIn(**{**fields, "uid": uid}), trusted=True)
        except HooksError as error:
            raise InputError(f"{place}{name}.{error}") from None
    return app


def _bring_up_to_date(
    session: Session, context: Context, app: Application, uid: str, given: EndpointIn
) -> None:
    """Change what differs; what waits for the endpoint stays."""
    patch = EndpointPatch(
        kind=given.kind,
        url=given.url,
        options=given.options,
        headers=given.headers or {},
        timeout=given.timeout,
        tls=given.tls,
        event_types=given.event_types,
        channels=given.channels,
    )
    endpoint = patch_endpoint(session, context, app, uid, patch, trusted=True)
    secrets = secrets_of(session, context, [endpoint.id]).get(endpoint.id, ())
    if given.secret is not None and [given.secret] != [one.text for one in secrets[:1]]:
        rotate = EndpointSecretRotateIn(key=given.secret, grace_period_seconds=0)
        rotate_secret(session, context, endpoint, rotate)
