"""A charge point and its central system, both of the package ocpp, on either side of a gateway.

Says the port of the central system, reads that of the gateway, and says what came of each session, one JSON document on a
line: the actions that the central system heard, and the close code. A session goes through once as it is; then once for
every step and way to mangle its call, and once with an answer that is mangled.
"""

import asyncio
import json
import os
import ssl
import sys
from datetime import datetime, timezone

from ocpp.routing import on
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

VERSION, AUTHORITY = sys.argv[1:]
LISTEN, GATEWAY = (os.environ.get(name, "127.0.0.1") for name in ("LISTEN", "GATEWAY"))
NOW = datetime.now(timezone.utc).isoformat()

if VERSION == "ocpp1.6":
    from ocpp.v16 import ChargePoint, call, call_result

    VALUES = [{"timestamp": NOW, "sampledValue": [{"value": "12", "unit": "kWh", "context": "Sample.Periodic"}]}]
    INFO = {"status": "Accepted"}
    ANSWERS = {
        "BootNotification": call_result.BootNotification(current_time=NOW, interval=300, status="Accepted"),
        "Heartbeat": call_result.Heartbeat(current_time=NOW),
        "StatusNotification": call_result.StatusNotification(),
        "Authorize": call_result.Authorize(id_tag_info=INFO),
        "StartTransaction": call_result.StartTransaction(transaction_id=7, id_tag_info=INFO),
        "MeterValues": call_result.MeterValues(),
        "StopTransaction": call_result.StopTransaction(id_tag_info=INFO),
    }
    CALLS = [
        call.BootNotification(charge_point_model="Model 1", charge_point_vendor="Vendor"),
        call.Heartbeat(),
        call.StatusNotification(connector_id=1, error_code="NoError", status="Available", timestamp=NOW),
        call.Authorize(id_tag="04A1B2C3"),
        call.StartTransaction(connector_id=1, id_tag="04A1B2C3", meter_start=0, timestamp=NOW),
        call.MeterValues(connector_id=1, transaction_id=7, meter_value=VALUES),
        call.StopTransaction(meter_stop=12, timestamp=NOW, transaction_id=7, reason="Local"),
    ]
else:
    from ocpp.v201 import ChargePoint, call, call_result

    VALUES = [{"timestamp": NOW, "sampledValue": [{"value": 12.5, "context": "Sample.Periodic"}]}]
    TOKEN = {"idToken": "04A1B2C3", "type": "ISO14443"}
    INFO = {"status": "Accepted"}
    ANSWERS = {
        "BootNotification": call_result.BootNotification(current_time=NOW, interval=300, status="Accepted"),
        "Heartbeat": call_result.Heartbeat(current_time=NOW),
        "StatusNotification": call_result.StatusNotification(),
        "Authorize": call_result.Authorize(id_token_info=INFO),
        "TransactionEvent": call_result.TransactionEvent(id_token_info=INFO),
        "MeterValues": call_result.MeterValues(),
    }

    def event(kind, number):
        return call.TransactionEvent(
            event_type=kind, timestamp=NOW, trigger_reason="Authorized", seq_no=number,
            transaction_info={"transactionId": "7"}, id_token=TOKEN,
        )

    CALLS = [
        call.BootNotification(charging_station={"model": "Model 1", "vendorName": "Vendor"}, reason="PowerUp"),
        call.Heartbeat(),
        call.StatusNotification(timestamp=NOW, connector_status="Available", evse_id=1, connector_id=1),
        call.Authorize(id_token=TOKEN),
        event("Started", 0),
        call.MeterValues(evse_id=1, meter_value=VALUES),
        event("Ended", 1),
    ]

# Ways to mangle a payload.
MANGLES = {
    "member": lambda payload: payload.update(script="<script>alert(1)</script>"),
    "missing": lambda payload: payload.clear(),
    "type": lambda payload: payload.update({name: [[]] for name in payload}),
}


class Wire:
    """A connection that can mangle the payload of what it sends, and remembers what it received."""

    def __init__(self, socket, at=None, mangle=None):
        self.socket, self.at, self.mangle = socket, at, mangle
        self.sent, self.received = 0, []

    async def send(self, text):
        self.sent += 1
        if self.sent == self.at:
            message = json.loads(text)
            self.mangle(message[-1])
            text = json.dumps(message)
        await self.socket.send(text)

    async def recv(self):
        text = await self.socket.recv()
        self.received.append(json.loads(text))
        return text


def handler(action):
    def answer(self, **_):
        return ANSWERS[action]

    # The package finds handlers by their names.
    answer.__name__ = f"on_{action}"
    return on(action)(answer)


Central = type("Central", (ChargePoint,), {f"on_{action}": handler(action) for action in ANSWERS})


class Sessions:
    """The central system's side: the wire of the last session, and how that of the next one mangles."""

    def __init__(self):
        self.wire, self.next, self.ended = None, (), asyncio.Event()

    async def serve(self, socket):
        self.wire = Wire(socket, *self.next)
        try:
            await Central("CP1", self.wire).start()
        except ConnectionClosed:
            self.ended.set()


async def session(port, central, point=(), answers=()):
    """Makes all calls: the actions that the central system heard, the answers, and the code of the Close frame."""
    central.next, central.ended = answers, asyncio.Event()
    trust = ssl.create_default_context(cafile=AUTHORITY)
    url = "wss://chargers.example.com/ocpp/CP1"
    socket = await connect(url, host=GATEWAY, port=port, ssl=trust, subprotocols=[VERSION], proxy=None)
    wire = Wire(socket, *point)
    station = ChargePoint("CP1", wire, response_timeout=20)
    reading = asyncio.create_task(station.start())
    code, answered = None, 0
    for one in CALLS:
        calling = asyncio.create_task(station.call(one))
        await asyncio.wait({calling, reading}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            calling.cancel()
            code = socket.close_code
            break
        answered += calling.result() is not None
    await socket.close()
    await asyncio.gather(reading, return_exceptions=True)
    await central.ended.wait()
    heard = [message[2] for message in central.wire.received]
    return {"heard": heard, "answered": answered, "code": code}


async def main():
    central = Sessions()
    async with serve(central.serve, LISTEN, 0, subprotocols=[VERSION]) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        port = int(await asyncio.to_thread(sys.stdin.readline))
        cases = {"good": await session(port, central)}
        for step, one in enumerate(CALLS, start=1):
            for name, mangle in MANGLES.items():
                # A heartbeat has nothing that could be missing.
                if name == "member" or not isinstance(one, call.Heartbeat):
                    cases[f"{step} {name}"] = await session(port, central, point=(step, mangle))
            cases[f"{step} answer"] = await session(port, central, answers=(step, MANGLES["member"]))
        for name, came in cases.items():
            print(json.dumps({"case": name, **came}), flush=True)


asyncio.run(main())
