"""A FastAPI application with the gateway inside: orders are placed by POST, and every open page sees them.

    uvicorn --app-dir examples/fastapi_mount app:app
    REDIS=redis://127.0.0.1:6379 uvicorn --app-dir examples/fastapi_mount app:app --workers 4

With several workers a request and a page may be in different processes; Redis connects them.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from yelpaze import Live, StoppedError

SETTINGS = {
    "client": {"allow_anonymous_connect_without_token": True},
    "channel": {
        "namespaces": [
            {
                "name": "shop",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "history_size": 100,
                "history_ttl": "10m",
            }
        ]
    },
}
live = Live(SETTINGS, broker=os.environ.get("REDIS", "memory"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with live:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/live", live.asgi())


class Order(BaseModel):
    table: int = Field(ge=1, le=99)
    dish: str = Field(min_length=1, max_length=80)


@app.post("/orders", status_code=201)
async def place(order: Order) -> dict[str, int]:
    """Tell all pages. An order that could not be told is not placed."""
    told = {"id": uuid4().hex, **order.model_dump(), "process": os.getpid()}
    try:
        position = await live.publish("shop:orders", told)
    except StoppedError:
        raise HTTPException(503, "try again in a moment", {"Retry-After": "1"}) from None
    return {"number": position.offset}


@app.get("/orders")
async def latest() -> list[dict[str, int | str]]:
    """The last orders, oldest first."""
    return await live.history("shop:orders", limit=20)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))
