"""The bare check: pycurl's socket_action over epoll, a fresh connection each, addresses given, nothing kept.

python benches/monitor/bare.py PORT COUNT [CA_FILE]
"""

import contextlib
import json
import resource
import select
import sys
import time

import pycurl
from farm import address_of, kind_of

AT_ONCE = 200


def main(port, count, ca_file):
    scheme = "https" if ca_file else "http"
    numbers = iter([n for n in range(count * 2) if kind_of(n) == "good"][:count])
    multi = pycurl.CurlMulti()
    free, good, running = [], 0, 0

    def handle():
        easy = pycurl.Curl()
        easy.setopt(pycurl.FORBID_REUSE, 1)
        easy.setopt(pycurl.FRESH_CONNECT, 1)
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.SSL_SESSIONID_CACHE, 0)
        if ca_file:
            easy.setopt(pycurl.CAINFO, ca_file)
            easy.setopt(pycurl.SSL_EC_CURVES, "X25519:prime256v1")
        return easy

    poll, timer = select.epoll(), [None]
    watched = {}
    events = {
        pycurl.POLL_IN: select.EPOLLIN,
        pycurl.POLL_OUT: select.EPOLLOUT,
        pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
    }

    def on_socket(what, fd, *_):
        if what == pycurl.POLL_REMOVE:
            if watched.pop(fd, None) is not None:
                with contextlib.suppress(OSError):
                    poll.unregister(fd)
        elif fd in watched:
            poll.modify(fd, events[what])
        else:
            watched[fd] = True
            poll.register(fd, events[what])

    def on_timer(milliseconds):
        timer[0] = None if milliseconds < 0 else time.perf_counter() + milliseconds / 1000

    multi.setopt(pycurl.M_SOCKETFUNCTION, on_socket)
    multi.setopt(pycurl.M_TIMERFUNCTION, on_timer)
    began, cpu = time.perf_counter(), time.process_time()
    while True:
        while running < AT_ONCE:
            number = next(numbers, None)
            if number is None:
                break
            easy = free.pop() if free else handle()
            name = f"s{number}.farm.test"
            easy.setopt(pycurl.URL, f"{scheme}://{name}:{port}/")
            # libcurl looks through its whole cache of names for each transfer: the last one is taken out.
            forget = [f"-{easy.name}:{port}"] if hasattr(easy, "name") else []
            easy.setopt(pycurl.RESOLVE, [*forget, f"{name}:{port}:{address_of(number)}"])
            easy.name = name
            body = bytearray()
            easy.body = body
            easy.setopt(pycurl.WRITEFUNCTION, body.extend)
            multi.add_handle(easy)
            running += 1
        if not running:
            break
        if timer[0] is not None and timer[0] <= time.perf_counter():
            timer[0] = None
            multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        for fd, bits in poll.poll(0.01, 512):
            what = (pycurl.CSELECT_IN if bits & ~select.EPOLLOUT else 0) | (
                pycurl.CSELECT_OUT if bits & select.EPOLLOUT else 0
            )
            multi.socket_action(fd, what)
        queued = 1
        while queued:
            queued, done, failed = multi.info_read()
            for easy in done:
                good += easy.getinfo(pycurl.RESPONSE_CODE) == 200 and easy.body == b"ok"
                easy.getinfo(pycurl.TOTAL_TIME)
            for easy in (*done, *(one[0] for one in failed)):
                multi.remove_handle(easy)
                free.append(easy)
                running -= 1
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"good": good, "rate": count / wall, "cpu_us": cpu / count * 1e6, "peak_mb": peak}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
