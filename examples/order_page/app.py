"""The order page as a FastAPI endpoint.

    SHOP=http://127.0.0.1:8099 uvicorn --app-dir examples/order_page app:app
    curl http://127.0.0.1:8000/orders/7

One engine for the application, opened and closed with it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from order_page import engine, order_page

SHOP = os.environ.get("SHOP", "http://127.0.0.1:8099")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine() as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/orders/{number}")
async def order(number: int, request: Request, response: Response) -> dict[str, Any]:
    faults = dict(request.query_params)
    page = await order_page(request.app.state.engine, SHOP, faults)
    if not page["complete"]:
        response.headers["Cache-Control"] = "no-store"
    return {"order": number, **page}
