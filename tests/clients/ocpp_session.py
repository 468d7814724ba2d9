"""A charge point of the package ocpp and its central system, on either side of a gateway that wants a token. Arguments:
the authority's file. Says the server's port, reads the gateway's, and says what the charge point saw."""

import asyncio
import json
import os
import ssl
import sys

from ocpp.routing import on
from ocpp.v201 import ChargePoint, call, call_result
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

TRUST = ssl.create_default_context(cafile=sys.argv[1])
URL, PROTOCOLS = "wss://chat.example.com/ocpp/CP1", ["ocpp2.0.1"]


class Central(ChargePoint):
    @on("DataTransfer")
    def on_data_transfer(self, **payload):
        return call_result.DataTransfer(status="Accepted", data=payload["data"])


async def station(port, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        socket = await connect(
            URL, host="127.0.0.1", port=port, ssl=TRUST, subprotocols=PROTOCOLS, additional_headers=headers, proxy=None
        )
    except InvalidStatus as refused:
        return refused.response.status_code
    point = ChargePoint("CP1", socket, response_timeout=30)
    reading = asyncio.create_task(point.start())
    answer = await point.call(call.DataTransfer(vendor_id="vendor", data="grüße €"))
    await socket.close(4000, "enough")
    await asyncio.gather(reading, return_exceptions=True)
    return [socket.subprotocol, answer.data, socket.close_code, socket.close_reason]


async def main():
    ended = asyncio.Queue()

    async def central(socket):
        try:
            await Central("CP1", socket).start()
        except ConnectionClosed as closed:
            await ended.put([closed.rcvd.code, closed.rcvd.reason])

    async with serve(central, "127.0.0.1", 0, subprotocols=PROTOCOLS) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        port = int(await asyncio.to_thread(sys.stdin.readline))
        for step, token in {"without": "", "limited": os.environ["LIMITED"], "good": os.environ["GOOD"]}.items():
            saw = await station(port, token)
            seen = [await ended.get()] if step == "good" else []
            print(json.dumps({"case": f"ocpp {step}", "client": saw, "seen": seen}), flush=True)


asyncio.run(main())
