"""python mosec_server.py --port PORT --address 127.0.0.1 …: mosec's own examples, the function ours.

/inference takes a row a request, and mosec makes batches of them, as its documentation shows it.
/rows takes many rows a request, which is not what it is made for, but spares most of HTTP.
"""

from mosec import Server
from mosec.mixin import TypedMsgPackMixin
from rows import work

BATCH = 64


class OneRow(TypedMsgPackMixin):
    def forward(self, data: list[dict]) -> list[dict]:
        return [work(row) for row in data]


class ManyRows(TypedMsgPackMixin):
    def forward(self, data: list[dict]) -> list[dict]:
        return [work(row) for row in data]


if __name__ == "__main__":
    server = Server()
    server.append_worker(OneRow, num=2, max_batch_size=BATCH, max_wait_time=10)
    server.append_worker(ManyRows, num=2, route="/rows")
    server.run()
