"""Messages through a gateway that compresses, with the client of `websockets`: every size, type, fragmentation and window
of groups 12 and 13 of the Autobahn test suite. Arguments: host, port, the authority's file."""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

HOST, PORT, AUTHORITY = sys.argv[1], int(sys.argv[2]), sys.argv[3]
SIZES = [0, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072]
NUMBERS = ", ".join(str(n * 7919) for n in range(30_000))


def fragments(payload, size):
    return [payload[at:at + size] for at in range(0, len(payload), size)] or [payload[:0]]


async def walk(offer):
    context = ssl.create_default_context(cafile=AUTHORITY)
    uri, counts = f"wss://{HOST}:{PORT}/", 0
    factory = ClientPerMessageDeflateFactory(**offer)
    async with connect(
        uri, host="127.0.0.1", ssl=context, compression=None, extensions=[factory], max_size=None
    ) as client:
        [negotiated] = client.protocol.extensions
        assert negotiated.local_no_context_takeover and negotiated.remote_no_context_takeover, negotiated
        assert negotiated.remote_max_window_bits == offer.get("server_max_window_bits", 15), negotiated
        for size in SIZES:
            for payload in NUMBERS[:size], NUMBERS[:size].encode():
                await client.send(payload)
                assert await client.recv() == payload, f"{offer}: {size} {type(payload)}"
                await client.send(fragments(payload, max(size // 5, 1)))
                assert await client.recv() == payload, f"{offer}: {size} {type(payload)} in fragments"
                counts += 2
    return counts


async def main():
    offers = [{"client_max_window_bits": True}, {}, {"server_no_context_takeover": True, "client_no_context_takeover": True}]
    offers += [{"server_max_window_bits": bits, "client_max_window_bits": bits} for bits in range(9, 16)]
    print(json.dumps({"messages": sum([await walk(offer) for offer in offers])}))


asyncio.run(main())
