"""Bodies, answers and errors of the JSON API: values are msgspec's, errors have Svix's form."""

import re
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from yelpaze.model.api_error import ApiError
from yelpaze.store.session import StoreUnavailable

_CODES = {404: "not_found", 405: "method_not_allowed"}
_MISSING = re.compile(r"missing required field `(\w+)`")
_ROOM = 64 << 10  # bytes of a body beside its payload


def answer(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def body_of(kind: type, most: int) -> Callable[[Request], Coroutine[Any, Any, Any]]:
    """Read a request's body as that struct. It raises ApiError for what is none."""

    async def read(request: Request) -> Any:
        data = await read_body(request, most + _ROOM)
        request.state.body = data
        return decoded(data, kind)

    return read


async def read_body(request: Request, most: int) -> bytes:
    """Read a body of so many bytes at most. Raises ApiError."""
    length = request.headers.get("content-length", "0")
    parts: list[bytes] = []
    size = int(length) if length.isdigit() else 0
    if size <= most:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                break
            parts.append(part)
        else:
            return b"".join(parts)
    raise ApiError(413, "payload_too_large", f"a body has {most:,} bytes at most")


def decoded(data: bytes, kind: type) -> Any:
    """Decode a body. Raises ApiError with the field that is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        names = path.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "").split(".")
        missing = _MISSING.search(text)
        field = (*filter(None, names), *([missing[1]] if missing else []))
        raise ApiError(422, "validation", text, field) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "bad_request", f"the body is no JSON: {error}") from None


def add_error_handlers(app: FastAPI) -> None:
    """Give every error the same form."""

    @app.exception_handler(ApiError)
    async def refused(_request: Request, error: Any) -> Response:
        headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:.0f}"}
        if error.status == 401:  # noqa: PLR2004
            headers["www-authenticate"] = "Bearer"
        if error.status == 422:  # noqa: PLR2004
            loc = [error.where, *error.field]
            found = answer({"detail": [{"loc": loc, "msg": error.detail, "type": "value_error"}]}, 422)
        else:
            where = f"{'.'.join(error.field)}: " if error.field else ""
            found = answer({"code": error.code, "detail": f"{where}{error.detail}"}, error.status)
        found.headers.update(headers)
        return found

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: Any) -> Response:
        details = [
            {"loc": [str(one) for one in each["loc"]], "msg": each["msg"], "type": each["type"]}
            for each in error.errors()
        ]
        return answer({"detail": details}, 422)

    @app.exception_handler(HTTPException)
    async def failed(_request: Request, error: Any) -> Response:
        code = _CODES.get(error.status_code, "bad_request")
        found = answer({"code": code, "detail": str(error.detail)}, error.status_code)
        found.headers.update(error.headers or {})
        return found

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Any) -> Response:
        return answer({"code": "server_error", "detail": "this is a defect: the log has more"}, 500)

    @app.exception_handler(StoreUnavailable)
    async def away(_request: Request, _error: Any) -> Response:
        found = answer({"code": "unavailable", "detail": "the store cannot be used now: try again"}, 503)
        found.headers["retry-after"] = "1"
        return found
