"""The catalogue of event types."""

from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import event_types
from yelpaze.hooks.log.idempotency import once
from yelpaze.hooks.log.paging import PageRequest
from yelpaze.hooks.values import (
    EventTypeIn,
    EventTypeOut,
    EventTypePatch,
    EventTypeUpdate,
)
from yelpaze.web.answers import answer
from yelpaze.web.hooks_api.common import (
    Caller,
    Iterator,
    Limit,
    Order,
    given_as,
    key_of,
    page_of,
)
from yelpaze.web.openapi import described


def add_event_types(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["event type"]

    @router.get("/event-type", tags=tags, openapi_extra=described(None, page_of=EventTypeOut))
    async def list_event_types(
        access: Caller,  # noqa: ARG001  every token may
        limit: Limit = 50,
        iterator: Iterator = None,
        order: Order = None,
        include_archived: bool = False,
        with_content: bool = False,
    ) -> Response:
        asked = PageRequest(iterator, limit, order == "descending")
        page = await hooks.read(
            partial(event_types.list_event_types, asked=asked, with_archived=include_archived)
        )

        def out(row: Any) -> EventTypeOut:
            found = event_types.event_type_of(row)
            return found if with_content else msgspec.structs.replace(found, schemas=None)

        return page_of(page, out)

    @router.post(
        "/event-type", tags=tags, openapi_extra=described(EventTypeOut, status=201, body=EventTypeIn)
    )
    async def create_event_type(
        request: Request, access: Caller, given: Annotated[Any, given_as(EventTypeIn)]
    ) -> Response:
        key = key_of(request, access)
        made = await hooks.write(
            lambda session: once(
                session,
                hooks.context,
                key,
                lambda: event_types.create_event_type(session, hooks.context, access, given),
                EventTypeOut,
            )
        )
        return answer(made, 201)

    @router.get("/event-type/{name}", tags=tags, openapi_extra=described(EventTypeOut))
    async def get_event_type(name: str, access: Caller) -> Response:  # noqa: ARG001
        return answer(await hooks.read(partial(event_types.find_event_type, name=name)))

    @router.put("/event-type/{name}", tags=tags, openapi_extra=described(EventTypeOut, body=EventTypeUpdate))
    async def put_event_type(
        name: str, access: Caller, given: Annotated[Any, given_as(EventTypeUpdate)]
    ) -> Response:
        made = await hooks.write(
            lambda session: event_types.put_event_type(session, hooks.context, access, name, given)
        )
        return answer(made)

    @router.patch("/event-type/{name}", tags=tags, openapi_extra=described(EventTypeOut, body=EventTypePatch))
    async def patch_event_type(
        name: str, access: Caller, given: Annotated[Any, given_as(EventTypePatch)]
    ) -> Response:
        changed = await hooks.write(
            lambda session: event_types.patch_event_type(session, hooks.context, access, name, given)
        )
        return answer(changed)

    @router.delete(
        "/event-type/{name}", status_code=204, tags=tags, openapi_extra=described(None, status=204)
    )
    async def delete_event_type(name: str, access: Caller, expunge: bool = False) -> Response:
        await hooks.write(
            lambda session: event_types.delete_event_type(
                session, hooks.context, access, name, expunge=expunge
            )
        )
        return Response(status_code=204)
