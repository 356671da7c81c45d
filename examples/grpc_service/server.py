"""A spelling service in many processes on one port; client.py calls it.

    python examples/grpc_service/server.py
    python examples/grpc_service/client.py recieve seperate

Comparing words is CPU work in plain Python, which one process does on one core however many threads it has.
SIGHUP replaces the processes one after the other, SIGTERM ends them; calls under way are finished.
"""

import argparse
import difflib
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
from spelling_pb2 import CorrectReply, CorrectRequest, CorrectTextRequest
from spelling_pb2_grpc import SpellingServicer, add_SpellingServicer_to_server

from yelpaze.rpc import serve

WORDS = Path(__file__).with_name("words.txt").read_text().split()


class Speller(SpellingServicer):
    def Correct(self, request: CorrectRequest, context: grpc.ServicerContext) -> CorrectReply:  # noqa: N802
        if not request.word.isalpha():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.word!r} is no word")
        return nearest(request.word)

    def CorrectText(  # noqa: N802
        self, request: CorrectTextRequest, context: grpc.ServicerContext
    ) -> Iterator[CorrectReply]:
        for word in request.text.split():
            yield nearest(word)


def nearest(word: str) -> CorrectReply:
    found = [word] if word in WORDS else difflib.get_close_matches(word, WORDS)
    return CorrectReply(word=word, suggestions=found, process=os.getpid())


def register(server: grpc.Server) -> None:
    """Each process calls this once: here is the place for what it needs, such as a model or a dictionary."""
    add_SpellingServicer_to_server(Speller(), server)


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--listen", default="127.0.0.1:50051")
    flags.add_argument("--processes", type=int, default=None, help="one a core if not given")
    flags.add_argument("--private-ports", type=int, nargs=2, metavar=("FIRST", "LAST"))
    given = flags.parse_args()
    serve(
        register,
        listen=given.listen,
        processes=given.processes,
        threads=2,  # CPU work gains nothing from the second, but a word need not wait for the end of a text
        private_ports=tuple(given.private_ports) if given.private_ports else None,
    )
