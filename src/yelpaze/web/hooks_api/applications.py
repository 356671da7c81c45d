"""Applications."""

from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications
from yelpaze.hooks.log.applications import Application
from yelpaze.hooks.log.idempotency import once
from yelpaze.hooks.log.paging import PageRequest
from yelpaze.hooks.values import (
    ApplicationIn,
    ApplicationOut,
    ApplicationPatch,
)
from yelpaze.store.session import Session
from yelpaze.web.answers import answer
from yelpaze.web.hooks_api.common import (
    Caller,
    Iterator,
    Limit,
    Order,
    as_patch,
    given_as,
    key_of,
    page_of,
)
from yelpaze.web.openapi import described


def add_applications(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["application"]

    @router.get("/app", tags=tags, openapi_extra=described(None, page_of=ApplicationOut))
    async def list_applications(
        access: Caller, limit: Limit = 50, iterator: Iterator = None, order: Order = None
    ) -> Response:
        asked = PageRequest(iterator, limit, order == "descending")
        work = partial(applications.list_applications, access=access, asked=asked)
        found = await hooks.read(work)
        return page_of(found, lambda row: applications.application_of(row).out())

    @router.post("/app", tags=tags, openapi_extra=described(ApplicationOut, status=201, body=ApplicationIn))
    async def create_application(
        request: Request,
        access: Caller,
        given: Annotated[Any, given_as(ApplicationIn)],
        get_if_exists: bool = False,
    ) -> Response:
        access.require_all()
        key = key_of(request, access, get_if_exists)
        is_new = True

        def create(session: Session) -> ApplicationOut:
            nonlocal is_new
            app, is_new = applications.create_application(
                session, hooks.context, given, get_if_exists=get_if_exists
            )
            return app.out()

        made = await hooks.write(
            lambda session: once(session, hooks.context, key, partial(create, session), ApplicationOut)
        )
        return answer(made, 201 if is_new else 200)

    @router.get("/app/{app_id}", tags=tags, openapi_extra=described(ApplicationOut))
    async def get_application(app_id: str, access: Caller) -> Response:
        found = await hooks.read(partial(applications.find_application, access=access, name=app_id))
        return answer(found.out())

    @router.put(
        "/app/{app_id}", tags=tags, openapi_extra=described(ApplicationOut, body=ApplicationIn, or_status=201)
    )
    async def put_application(
        app_id: str, access: Caller, given: Annotated[Any, given_as(ApplicationIn)]
    ) -> Response:
        patch = as_patch(given, ApplicationPatch)

        def put(session: Session) -> tuple[Application, bool]:
            try:
                return applications.patch_application(session, hooks.context, access, app_id, patch), False
            except HooksError as error:
                if error.status != 404 or not access.is_all():  # noqa: PLR2004
                    raise
            wanted = msgspec.structs.replace(given, uid=given.uid or app_id)
            return applications.create_application(session, hooks.context, wanted)

        made, is_new = await hooks.write(put)
        return answer(made.out(), 201 if is_new else 200)

    @router.patch("/app/{app_id}", tags=tags, openapi_extra=described(ApplicationOut, body=ApplicationPatch))
    async def patch_application(
        app_id: str, access: Caller, given: Annotated[Any, given_as(ApplicationPatch)]
    ) -> Response:
        changed = await hooks.write(
            lambda session: applications.patch_application(session, hooks.context, access, app_id, given)
        )
        return answer(changed.out())

    @router.delete("/app/{app_id}", status_code=204, tags=tags, openapi_extra=described(None, status=204))
    async def delete_application(app_id: str, access: Caller) -> Response:
        access.require_all()
        for endpoint_id in await hooks.write(
            partial(applications.delete_application, access=access, name=app_id)
        ):
            hooks.changed(endpoint_id)
        return Response(status_code=204)
