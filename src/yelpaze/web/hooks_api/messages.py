"""Messages."""

from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from yelpaze.hooks.errors import invalid
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications, messages
from yelpaze.hooks.log.messages import MessageFilter, NewMessage
from yelpaze.hooks.log.paging import Slice
from yelpaze.hooks.values import (
    MessageIn,
    MessageOut,
)
from yelpaze.store.session import Session
from yelpaze.web.answers import answer, decoded, read_body
from yelpaze.web.hooks_api.common import (
    ROOM,
    Caller,
    NewestFirst,
    Time,
    Words,
    key_of,
    page_of,
    split_words,
)
from yelpaze.web.openapi import described


def _with_raw_payload(given: MessageIn) -> MessageIn:
    """Svix's SDKs pass a payload that is text already in this way. Raises HooksError."""
    parameters = given.transformations_params
    if not parameters:
        return given
    raw = parameters.get("rawPayload")
    if set(parameters) != {"rawPayload"} or not isinstance(raw, str):
        raise invalid(
            "transformationsParams", "takes rawPayload alone: payloads are JSON, and nothing transforms them"
        )
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise invalid("transformationsParams", f"rawPayload is no JSON: {error}") from None
    return msgspec.structs.replace(given, payload=msgspec.Raw(raw.encode()))


def add_messages(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["message"]
    path = "/app/{app_id}/msg"

    @router.post(
        path, status_code=202, tags=tags, openapi_extra=described(MessageOut, status=202, body=MessageIn)
    )
    async def create_message(
        request: Request, app_id: str, access: Caller, with_content: bool = True
    ) -> Response:
        data = request.state.body = await read_body(request, hooks.settings.max_payload + ROOM)
        given = _with_raw_payload(decoded(data, MessageIn))
        accepted = await hooks.accept(NewMessage(app_id, access, given, key_of(request, access)))
        return answer(accepted.message.out(with_content=with_content), 202)

    @router.get(path, tags=tags, openapi_extra=described(None, page_of=MessageOut))
    async def list_messages(
        app_id: str,
        access: Caller,
        asked: NewestFirst,
        channel: Words = None,
        tag: Words = None,
        before: Time = None,
        after: Time = None,
        with_content: bool = True,
        event_types: Words = None,
    ) -> Response:
        which = MessageFilter(
            event_types=split_words(event_types),
            channel=channel,
            tag=tag,
            before=before,
            after=after,
            with_content=with_content,
        )

        def listed(session: Session) -> Slice:
            app = applications.find_application(session, access, app_id)
            return messages.list_messages(session, app, asked, which)

        return page_of(
            await hooks.read(listed),
            lambda row: messages.message_of(row).out(with_content=with_content),
        )

    @router.get(path + "/{msg_id}", tags=tags, openapi_extra=described(MessageOut))
    async def get_message(app_id: str, msg_id: str, access: Caller, with_content: bool = True) -> Response:
        def found(session: Session) -> MessageOut:
            app = applications.find_application(session, access, app_id)
            return messages.find_message(session, app, msg_id).out(with_content=with_content)

        return answer(await hooks.read(found))

    @router.delete(
        path + "/{msg_id}/content", status_code=204, tags=tags, openapi_extra=described(None, status=204)
    )
    async def expunge_message(app_id: str, msg_id: str, access: Caller) -> Response:
        await hooks.write(partial(messages.expunge_message, access=access, app_name=app_id, name=msg_id))
        return Response(status_code=204)
