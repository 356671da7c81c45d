"""Tokens."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications
from yelpaze.hooks.values import (
    Page,
    TokenIn,
    TokenOut,
)
from yelpaze.web.answers import answer
from yelpaze.web.hooks_api.common import (
    Caller,
    given_as,
)
from yelpaze.web.openapi import described


def add_tokens(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["token"]

    @router.get("/token", tags=tags, openapi_extra=described(None, page_of=TokenOut))
    async def list_tokens(access: Caller) -> Response:
        found = await hooks.read(partial(applications.list_tokens, access=access))
        return answer(Page(data=list(found), iterator=None, prev_iterator=None, done=True))

    @router.post("/token", tags=tags, openapi_extra=described(TokenOut, status=201, body=TokenIn))
    async def create_token(access: Caller, given: Annotated[Any, given_as(TokenIn)]) -> Response:
        made = await hooks.write(
            lambda session: applications.create_token(session, hooks.context, access, given)
        )
        return answer(made, 201)

    @router.delete("/token/{token_id}", status_code=204, tags=tags, openapi_extra=described(None, status=204))
    async def delete_token(token_id: str, access: Caller) -> Response:
        await hooks.write(partial(applications.delete_token, access=access, token_id=token_id))
        return Response(status_code=204)
