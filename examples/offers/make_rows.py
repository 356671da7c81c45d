"""Write rows for the offers flow: `python make_rows.py 10000 rows.jsonl [SHOP-URL]`.

The shop is that of the environment variable SHOP if none is given.
"""

import json
import os
import sys

SEGMENTS = ("home", "garden", "office", "kids")


SHOP = os.environ.get("SHOP", "http://127.0.0.1:8099")


def main(count: int, path: str, shop: str = SHOP) -> None:
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123  plain Python for readers
        for number in range(1, count + 1):
            segment = SEGMENTS[number % len(SEGMENTS)]
            row = {"url": f"{shop}/products/{segment}", "json": {"customer": number}}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
