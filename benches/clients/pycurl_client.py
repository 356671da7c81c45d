"""pycurl used plainly: the multi interface with select, as its retriever-multi example does."""

import asyncio
import io

import pycurl
from measure import Task, task_from_argv, timed


def new_easy(task: Task) -> pycurl.Curl:
    easy = pycurl.Curl()
    easy.setopt(pycurl.NOSIGNAL, 1)
    easy.setopt(pycurl.CAINFO, task.ca_file)
    easy.setopt(pycurl.FORBID_REUSE, int(task.fresh))
    if not task.http2:
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    return easy


async def main(task: Task) -> None:
    multi = pycurl.CurlMulti()
    free = [new_easy(task) for _ in range(task.connections)]
    buffers: dict[pycurl.Curl, io.BytesIO] = {}

    async def run(count: int) -> None:
        started = finished = 0
        while finished < count:
            while free and started < count:
                easy = free.pop()
                buffers[easy] = io.BytesIO()
                easy.setopt(pycurl.URL, task.url)
                easy.setopt(pycurl.WRITEDATA, buffers[easy])
                multi.add_handle(easy)
                started += 1
            multi.perform()
            _, good, bad = multi.info_read()
            if bad:
                raise SystemExit(f"failed: {bad[0][2]}")
            for easy in good:
                task.check(easy.getinfo(pycurl.RESPONSE_CODE), buffers.pop(easy).getvalue())
                multi.remove_handle(easy)
                free.append(easy)
                finished += 1
            if not good:
                multi.select(1.0)

    await timed(task, run)


asyncio.run(main(task_from_argv()))
