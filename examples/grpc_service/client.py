"""Ask the spelling service of server.py: each call goes to the process with the least to do.

python examples/grpc_service/client.py recieve seperate
python examples/grpc_service/client.py --server grpc://127.0.0.1:50051 definately
"""

import argparse
import asyncio

from spelling_pb2 import CorrectReply, CorrectRequest, CorrectTextRequest
from spelling_pb2_grpc import SpellingStub

from yelpaze.rpc import Channel


async def correct(server: str, words: list[str]) -> list[CorrectReply]:
    """All words at once, a call for each."""
    # A word may be corrected twice without harm, so a call that is lost with its process is made again.
    async with Channel(server, idempotent=True) as channel:
        stub = SpellingStub(channel)
        calls = (stub.Correct(CorrectRequest(word=word), timeout=10) for word in words)
        return await asyncio.gather(*calls)


async def correct_text(server: str, text: str) -> list[CorrectReply]:
    """One call, whose answers come one by one."""
    async with Channel(server) as channel:
        replies = SpellingStub(channel).CorrectText(CorrectTextRequest(text=text), timeout=10)
        return [reply async for reply in replies]


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--server", default="grpc://127.0.0.1:50051")
    flags.add_argument("words", nargs="*", default=["recieve", "seperate", "definately", "neccessary"])
    given = flags.parse_args()
    for reply in asyncio.run(correct(given.server, given.words)):
        print(f"{reply.word}: {', '.join(reply.suggestions) or 'not known'} (process {reply.process})")
