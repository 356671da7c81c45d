"""The log of attempts."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications, attempts, endpoints, messages
from yelpaze.hooks.log.attempts import AttemptFilter
from yelpaze.hooks.log.paging import Slice
from yelpaze.hooks.values import (
    AttemptOut,
    EndpointMessageOut,
    MessageEndpointOut,
)
from yelpaze.store.session import Session
from yelpaze.web.answers import answer
from yelpaze.web.hooks_api.common import (
    Caller,
    NewestFirst,
    OldestFirst,
    Time,
    Words,
    as_listed,
    page_of,
    split_words,
)
from yelpaze.web.openapi import described


def add_attempts(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["message attempt"]
    base = "/app/{app_id}"

    async def filters(
        status: Annotated[int | None, Query(ge=0, le=4)] = None,
        status_code_class: Annotated[int | None, Query(ge=0, le=500)] = None,
        response_status_code: Annotated[int | None, Query(ge=0, le=999)] = None,
        event_types: Words = None,
        channel: Words = None,
        tag: Words = None,
        of_endpoint: Annotated[str | None, Query(alias="endpoint_id", max_length=300)] = None,
        before: Time = None,
        after: Time = None,
        with_content: bool = True,
        with_msg: bool = False,
    ) -> AttemptFilter:
        return AttemptFilter(
            status=status,
            code_class=status_code_class,
            code=response_status_code,
            event_types=split_words(event_types),
            channel=channel,
            tag=tag,
            endpoint_id=of_endpoint,
            before=before,
            after=after,
            with_content=with_content,
            with_msg=with_msg,
        )

    which_of: Any = Depends(filters)

    @router.get(
        base + "/attempt/endpoint/{endpoint_id}",
        tags=tags,
        openapi_extra=described(None, page_of=AttemptOut),
    )
    async def list_by_endpoint(
        app_id: str,
        endpoint_id: str,
        access: Caller,
        which: Annotated[Any, which_of],
        asked: NewestFirst,
    ) -> Response:
        only = msgspec.structs.replace(which, endpoint_id=None)  # the path's, under the same name

        def listed(session: Session) -> Slice:
            app = applications.find_application(session, access, app_id)
            endpoint = endpoints.find_endpoint(session, hooks.context, app, endpoint_id)
            return attempts.list_attempts(session, app, asked, only, endpoint=endpoint)

        return page_of(await hooks.read(listed), as_listed)

    @router.get(base + "/attempt/msg/{msg_id}", tags=tags, openapi_extra=described(None, page_of=AttemptOut))
    async def list_by_message(
        app_id: str,
        msg_id: str,
        access: Caller,
        which: Annotated[Any, which_of],
        asked: NewestFirst,
    ) -> Response:
        def listed(session: Session) -> Slice:
            app = applications.find_application(session, access, app_id)
            message = messages.find_message(session, app, msg_id)
            only = which
            if which.endpoint_id is not None:
                endpoint = endpoints.find_endpoint(session, hooks.context, app, which.endpoint_id)
                only = msgspec.structs.replace(which, endpoint_id=endpoint.id)
            return attempts.list_attempts(session, app, asked, only, message=message)

        return page_of(await hooks.read(listed), as_listed)

    @router.get(
        base + "/endpoint/{endpoint_id}/msg",
        tags=tags,
        openapi_extra=described(None, page_of=EndpointMessageOut),
    )
    async def list_attempted_messages(
        app_id: str,
        endpoint_id: str,
        access: Caller,
        which: Annotated[Any, which_of],
        asked: NewestFirst,
    ) -> Response:
        def listed(session: Session) -> Slice:
            app = applications.find_application(session, access, app_id)
            endpoint = endpoints.find_endpoint(session, hooks.context, app, endpoint_id)
            return attempts.list_endpoint_messages(session, endpoint, asked, which)

        return page_of(await hooks.read(listed), as_listed)

    @router.get(
        base + "/msg/{msg_id}/endpoint",
        tags=tags,
        openapi_extra=described(None, page_of=MessageEndpointOut),
    )
    async def list_attempted_destinations(
        app_id: str, msg_id: str, access: Caller, asked: OldestFirst
    ) -> Response:
        def listed(session: Session) -> Slice:
            app = applications.find_application(session, access, app_id)
            message = messages.find_message(session, app, msg_id)
            return attempts.list_message_endpoints(session, hooks.context, message, asked)

        return page_of(await hooks.read(listed), as_listed)

    @router.get(base + "/msg/{msg_id}/attempt/{attempt_id}", tags=tags, openapi_extra=described(AttemptOut))
    async def get_attempt(app_id: str, msg_id: str, attempt_id: str, access: Caller) -> Response:
        def found(session: Session) -> AttemptOut:
            app = applications.find_application(session, access, app_id)
            message = messages.find_message(session, app, msg_id)
            return attempts.find_attempt(session, app, message, attempt_id)

        return answer(await hooks.read(found))

    @router.delete(
        base + "/msg/{msg_id}/attempt/{attempt_id}/content",
        status_code=204,
        tags=tags,
        openapi_extra=described(None, status=204),
    )
    async def expunge_attempt(app_id: str, msg_id: str, attempt_id: str, access: Caller) -> Response:
        def expunge(session: Session) -> None:
            app = applications.find_application(session, access, app_id)
            message = messages.find_message(session, app, msg_id)
            attempts.expunge_attempt(session, app, message, attempt_id)

        await hooks.write(expunge)
        return Response(status_code=204)

    @router.post(
        base + "/msg/{msg_id}/endpoint/{endpoint_id}/resend",
        status_code=202,
        tags=tags,
        openapi_extra=described(None, status=202),
    )
    async def resend(app_id: str, msg_id: str, endpoint_id: str, access: Caller) -> Response:
        await hooks.resend(app_id, msg_id, endpoint_id, access)
        return answer({}, 202)
