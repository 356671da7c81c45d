"""Operations on an endpoint: recover, replay, test events, counts."""

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from yelpaze.hooks.examples import example_of
from yelpaze.hooks.hooks import Hooks
from yelpaze.hooks.log import applications, attempts, endpoints
from yelpaze.hooks.log.messages import NewMessage
from yelpaze.hooks.values import (
    EndpointStats,
    ExampleIn,
    MessageIn,
    MessageOut,
    RecoverIn,
    TaskOut,
)
from yelpaze.store.session import Session
from yelpaze.web.answers import answer
from yelpaze.web.hooks_api.common import (
    Caller,
    Time,
    given_as,
)
from yelpaze.web.openapi import described


def add_endpoint_work(router: APIRouter, hooks: Hooks) -> None:
    tags: Any = ["endpoint"]
    path = "/app/{app_id}/endpoint/{endpoint_id}"

    def done(task: str) -> Response:
        out = TaskOut(id=hooks.context.ids.new("qtask"), status="finished", task=task, updated_at=hooks.now())
        return answer(out, 202)

    @router.post(
        path + "/recover",
        status_code=202,
        tags=tags,
        openapi_extra=described(TaskOut, status=202, body=RecoverIn),
    )
    async def recover(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(RecoverIn)]
    ) -> Response:
        await hooks.recover(app_id, endpoint_id, given.since, given.until, access)
        return done("endpoint.recover")

    @router.post(
        path + "/replay-missing",
        status_code=202,
        tags=tags,
        openapi_extra=described(TaskOut, status=202, body=RecoverIn),
    )
    async def replay_missing(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(RecoverIn)]
    ) -> Response:
        await hooks.replay_missing(app_id, endpoint_id, given.since, given.until, access)
        return done("endpoint.replay")

    @router.get(path + "/stats", tags=tags, openapi_extra=described(EndpointStats))
    async def stats(
        app_id: str, endpoint_id: str, access: Caller, since: Time = None, until: Time = None
    ) -> Response:
        def count(session: Session) -> EndpointStats:
            app = applications.find_application(session, access, app_id)
            endpoint = endpoints.find_endpoint(session, hooks.context, app, endpoint_id)
            return endpoints.stats_of(session, hooks.context, endpoint, since, until)

        return answer(await hooks.read(count))

    @router.post(
        path + "/send-example",
        tags=tags,
        status_code=202,
        openapi_extra=described(MessageOut, status=202, body=ExampleIn),
    )
    async def send_example(
        app_id: str, endpoint_id: str, access: Caller, given: Annotated[Any, given_as(ExampleIn)]
    ) -> Response:
        def prepare(session: Session) -> tuple[str, MessageIn]:
            app = applications.find_application(session, access, app_id)
            endpoint = endpoints.find_endpoint(session, hooks.context, app, endpoint_id)
            attempts.check_enabled(endpoint)
            return endpoint.id, example_of(session, given)

        only, message = await hooks.read(prepare)
        accepted = await hooks.accept(NewMessage(app_id, access, message, only=only))
        return answer(accepted.message.out(), 202)
