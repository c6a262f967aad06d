"""A device for tests of lanes without an interface: server.py ADDRESS PORT

The first line of a connection says what it is to be: `echo`; `sink N`, answered by the SHA-256 of N bytes; `source N SEED`;
`reset` at once; `deaf`, which reads nothing.
"""

import asyncio
import hashlib
import random
import socket
import struct
import sys


async def serve(reader, writer):
    words = (await reader.readline()).decode().split()
    kind = words[0] if words else ""
    if kind == "echo":
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    elif kind == "sink":
        left, digest = int(words[1]), hashlib.sha256()
        while left and (data := await reader.read(min(left, 65536))):
            digest.update(data)
            left -= len(data)
        writer.write(digest.hexdigest().encode() + b"\n")
    elif kind == "source":
        left, numbers = int(words[1]), random.Random(words[2])
        while left:
            data = numbers.randbytes(min(left, 65536))
            writer.write(data)
            await writer.drain()
            left -= len(data)
    elif kind == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        return
    elif kind == "deaf":
        writer.transport.pause_reading()
        await asyncio.sleep(60)
    try:
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        pass


async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]), backlog=512)
    async with server:
        await server.serve_forever()


asyncio.run(main())
