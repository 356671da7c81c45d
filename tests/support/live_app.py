"""A FastAPI application with `Live` inside, for tests: settings by environment, its methods by POST /do/NAME."""

import json
import os
from contextlib import asynccontextmanager

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response

from yelpaze import Live, YelpazeError

live = Live(json.loads(os.environ["SETTINGS"]), broker=os.environ.get("BROKER"))


@asynccontextmanager
async def lifespan(_):
    async with live:
        yield


app = FastAPI(lifespan=None if os.environ.get("NO_LIFESPAN") else lifespan)
app.mount("/live", live.asgi())


@app.post("/do/{name}")
async def do(name: str, request: Request) -> Response:
    try:
        result = await getattr(live, name)(**await request.json())
    except YelpazeError as error:
        raise HTTPException(409, f"{type(error).__name__}: {error}") from None
    return Response(msgspec.json.encode(result), media_type="application/json")
