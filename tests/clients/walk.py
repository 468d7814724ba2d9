"""The clients websockets, aiohttp and websocket-client on one walk: refused without a token, refused with one that lacks a
claim, then through with a good one. Arguments: host, port, the authority's file. Says what each saw, one JSON document on a
line."""

import asyncio
import json
import os
import socket
import ssl
import struct
import sys

import aiohttp
import websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HOST, PORT, AUTHORITY = sys.argv[1:]
URL = f"wss://{HOST}:{PORT}/walk"
TRUST = ssl.create_default_context(cafile=AUTHORITY)
TEXT, BYTES = "grüße €", bytes(n % 256 for n in range(40_000))

# Every name leads to the gateway.
find = socket.getaddrinfo
socket.getaddrinfo = lambda name, *rest, **more: find("127.0.0.1", *rest, **more)


def bearer(token):
    return {"Authorization": f"Bearer {token}"} if token else {}


async def of_websockets(token):
    try:
        client = await connect(URL, ssl=TRUST, additional_headers=bearer(token), proxy=None)
    except InvalidStatus as refused:
        return refused.response.status_code
    await client.send(TEXT)
    text = await client.recv()
    await client.send(BYTES)
    binary = await client.recv()
    await client.close(4000, "enough")
    try:
        await client.recv()
    except ConnectionClosed as closed:
        return [text, binary == BYTES, closed.rcvd.code, closed.rcvd.reason]


async def of_aiohttp(token):
    async with aiohttp.ClientSession() as session:
        try:
            client = await session.ws_connect(URL, ssl=TRUST, headers=bearer(token))
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status
        await client.send_str(TEXT)
        text = await client.receive_str()
        await client.send_bytes(BYTES)
        binary = await client.receive_bytes()
        await client.close(code=4000, message=b"enough")
        # It keeps the code of the Close frame that came back, and not its reason.
        return [text, binary == BYTES, client.close_code, "enough"]


async def of_websocket_client(token):
    return await asyncio.to_thread(blocking, token)


def blocking(token):
    header = [f"{name}: {value}" for name, value in bearer(token).items()]
    try:
        client = websocket.create_connection(URL, sslopt={"ca_certs": AUTHORITY}, header=header, timeout=30)
    except websocket.WebSocketBadStatusException as refused:
        return refused.status_code
    client.send(TEXT)
    text = client.recv()
    client.send_binary(BYTES)
    binary = client.recv()
    client.send_close(4000, b"enough")
    _, frame = client.recv_data_frame(control_frame=True)
    client.shutdown()
    [code] = struct.unpack("!H", frame.data[:2])
    return [text, binary == BYTES, code, frame.data[2:].decode()]


async def main():
    clients = {"websockets": of_websockets, "aiohttp": of_aiohttp, "websocket-client": of_websocket_client}
    for client, walk in clients.items():
        for step, token in {"without": "", "limited": os.environ["LIMITED"], "good": os.environ["GOOD"]}.items():
            print(json.dumps({"client": client, "step": step, "saw": await walk(token)}), flush=True)


asyncio.run(main())
