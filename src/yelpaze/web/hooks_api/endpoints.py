"""Endpoints: their settings, secrets and headers."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from yelpaze.hooks.context import Access
from yelpaze.hooks.errors import HooksError
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications, attempts, endpoints
from yelpaze.hooks.log.endpoints import Endpoint
from yelpaze.hooks.log.idempotency import once
from yelpaze.hooks.log.paging import PageRequest
from yelpaze.hooks.values import (
    EndpointHeadersIn,
    EndpointHeadersOut,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointOut,
    EndpointPatch,
    EndpointSecretOut,
    EndpointSecretRotateIn,
)
from yelpaze.store.session import Session
from yelpaze.web.answers import answer, decoded
from yelpaze.web.hooks_api.common import (
    Caller,
    Iterator,
    Limit,
    Order,
    as_listed,
    as_patch,
    given_as,
    key_of,
    page_of,
)
from yelpaze.web.openapi import described

_NOT_SVIX = ("kind", "options", "headers", "timeout", "concurrency", "fifo", "schedule", "tls", "paused")


def add_endpoints(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["endpoint"]
    path = "/app/{app_id}/endpoint"

    def found(session: Session, access: Access, app_id: str, endpoint_id: str) -> Endpoint:
        app = applications.find_application(session, access, app_id)
        return endpoints.find_endpoint(session, hooks.context, app, endpoint_id)

    @router.get(path, tags=tags, openapi_extra=described(None, page_of=EndpointOut))
    async def list_endpoints(
        app_id: str, access: Caller, limit: Limit = 50, iterator: Iterator = None, order: Order = None
    ) -> Response:
        asked = PageRequest(iterator, limit, order != "ascending")  # the newest first, as Svix has it
        page = await hooks.read(
            lambda session: endpoints.list_endpoints(session, hooks.context, access, app_id, asked)
        )
        return page_of(page, as_listed)

    @router.post(path, tags=tags, openapi_extra=described(EndpointOut, status=201, body=EndpointIn))
    async def create_endpoint(
        request: Request, app_id: str, access: Caller, given: Annotated[Any, given_as(EndpointIn)]
    ) -> Response:
        key = key_of(request, access)

        def create(session: Session) -> EndpointOut:
            app = applications.find_application(session, access, app_id)
            return endpoints.create_endpoint(session, hooks.context, app, given).out(hooks.context)

        made = await hooks.write(
            lambda session: once(session, hooks.context, key, partial(create, session), EndpointOut)
        )
        return answer(made, 201)

    @router.get(path + "/{endpoint_id}", tags=tags, openapi_extra=described(EndpointOut))
    async def get_endpoint(app_id: str, endpoint_id: str, access: Caller) -> Response:
        endpoint = await hooks.read(partial(found, access=access, app_id=app_id, endpoint_id=endpoint_id))
        return answer(endpoint.out(hooks.context))

    @router.put(
        path + "/{endpoint_id}",
        tags=tags,
        openapi_extra=described(EndpointOut, body=EndpointIn, or_status=201),
    )
    async def put_endpoint(
        request: Request,
        app_id: str,
        endpoint_id: str,
        access: Caller,
        given: Annotated[Any, given_as(EndpointIn)],
    ) -> Response:
        names = decoded(request.state.body, dict[str, msgspec.Raw])
        # Clients of Svix do not know these; a PUT of theirs leaves them as they are.
        kept = {name: msgspec.UNSET for name in _NOT_SVIX if name not in names}
        patch = msgspec.structs.replace(as_patch(given, EndpointPatch), **kept)

        def put(session: Session) -> tuple[Endpoint, bool]:
            app = applications.find_application(session, access, app_id)
            try:
                changed = endpoints.patch_endpoint(session, hooks.context, app, endpoint_id, patch)
            except HooksError as error:
                if error.status != 404:  # noqa: PLR2004
                    raise
            else:
                attempts.notify_owner(session, hooks.context, changed.id)
                return changed, False
            wanted = msgspec.structs.replace(given, uid=given.uid or endpoint_id)
            return endpoints.create_endpoint(session, hooks.context, app, wanted), True

        endpoint, is_new = await hooks.write(put)
        hooks.changed(endpoint.id)
        return answer(endpoint.out(hooks.context), 201 if is_new else 200)

    @router.patch(
        path + "/{endpoint_id}", tags=tags, openapi_extra=described(EndpointOut, body=EndpointPatch)
    )
    async def patch_endpoint(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(EndpointPatch)]
    ) -> Response:
        changed = await hooks.on_endpoint(
            lambda session, app, old: endpoints.patch_endpoint(session, hooks.context, app, old.id, given),
            app_id,
            endpoint_id,
            access,
        )
        return answer(changed.out(hooks.context))

    @router.delete(
        path + "/{endpoint_id}", status_code=204, tags=tags, openapi_extra=described(None, status=204)
    )
    async def delete_endpoint(app_id: str, endpoint_id: str, access: Caller) -> Response:
        await hooks.on_endpoint(
            lambda session, app, old: endpoints.delete_endpoint(session, hooks.context, app, old.id),
            app_id,
            endpoint_id,
            access,
        )
        return Response(status_code=204)

    @router.get(path + "/{endpoint_id}/secret", tags=tags, openapi_extra=described(EndpointSecretOut))
    async def get_secret(app_id: str, endpoint_id: str, access: Caller) -> Response:
        def secret(session: Session) -> EndpointSecretOut:
            endpoint = found(session, access, app_id, endpoint_id)
            secrets = endpoints.secrets_of(session, hooks.context, [endpoint.id])
            if endpoint.id not in secrets:
                raise HooksError(
                    404, "not_found", f"an endpoint of kind {endpoint.settings.kind} has no secret"
                )
            return EndpointSecretOut(key=secrets[endpoint.id][0].text)

        return answer(await hooks.read(secret))

    @router.post(
        path + "/{endpoint_id}/secret/rotate",
        tags=tags,
        openapi_extra=described(EndpointSecretOut, body=EndpointSecretRotateIn),
    )
    async def rotate_secret(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(EndpointSecretRotateIn)]
    ) -> Response:
        key = await hooks.on_endpoint(
            lambda session, _, endpoint: endpoints.rotate_secret(session, hooks.context, endpoint, given),
            app_id,
            endpoint_id,
            access,
        )
        return answer(EndpointSecretOut(key=key))

    @router.get(path + "/{endpoint_id}/headers", tags=tags, openapi_extra=described(EndpointHeadersOut))
    async def get_headers(app_id: str, endpoint_id: str, access: Caller) -> Response:
        endpoint = await hooks.read(partial(found, access=access, app_id=app_id, endpoint_id=endpoint_id))
        return answer(endpoints.shown_headers(endpoint))

    async def change_headers(
        app_id: str,
        endpoint_id: str,
        access: Access,
        changed: Callable[[dict[str, str]], dict[str, str]],
    ) -> Response:
        await hooks.on_endpoint(
            lambda session, _, endpoint: endpoints.set_headers(
                session, hooks.context, endpoint, changed(endpoint.settings.headers)
            ),
            app_id,
            endpoint_id,
            access,
        )
        return Response(status_code=204)

    @router.put(
        path + "/{endpoint_id}/headers",
        status_code=204,
        tags=tags,
        openapi_extra=described(None, status=204, body=EndpointHeadersIn),
    )
    async def put_headers(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(EndpointHeadersIn)]
    ) -> Response:
        return await change_headers(app_id, endpoint_id, access, lambda _: given.headers)

    @router.patch(
        path + "/{endpoint_id}/headers",
        status_code=204,
        tags=tags,
        openapi_extra=described(None, status=204, body=EndpointHeadersPatchIn),
    )
    async def patch_headers(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(EndpointHeadersPatchIn)]
    ) -> Response:
        dropped = {name.lower() for name in (*given.delete_headers, *given.headers)}

        def changed(old: dict[str, str]) -> dict[str, str]:
            kept = {name: value for name, value in old.items() if name.lower() not in dropped}
            return {**kept, **given.headers}

        return await change_headers(app_id, endpoint_id, access, changed)
