"""The rows of worker_http.py and what is done to each: about 20 µs of pure Python."""

TURNS = 200


def work(row: dict) -> dict:
    total = 0.0
    for number in range(TURNS):
        total += row["price"] * number % 7
    return {"id": row["id"], "total": round(total, 2)}


def rows(count: int) -> list[dict]:
    return [
        {"id": number, "name": "one of many", "price": number % 100 + 0.5, "items": [1, 2, 3, 4, 5]}
        for number in range(count)
    ]
