"""A client in a pod: `python -m` this, with where to begin, `write` or `read`, and a topic.

It follows the addresses that nodes tell. `write` produces numbers until
its input ends, and prints each when it is acknowledged; `read` prints every value that is there.
"""

from __future__ import annotations

import asyncio
import sys

from rakit.client import Client


async def write(bootstrap: str, topic: str) -> None:
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with Client(bootstrap) as client, client.producer() as producer:
        number = 0
        while not ended.done():
            value = b"%d" % number
            await (await producer.send(topic, value, key=value))
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            number += 1


async def read(bootstrap: str, topic: str) -> None:
    async with Client(bootstrap) as client, client.reader(topic, from_="earliest") as reader:
        async for record in reader:
            assert record.value is not None
            sys.stdout.write(record.value.decode() + "\n")


if __name__ == "__main__":
    asyncio.run({"write": write, "read": read}[sys.argv[2]](sys.argv[1], sys.argv[3]))
