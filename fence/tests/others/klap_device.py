"""TP-Link plugs of python-kasa: its cryptography, its fake devices, its recordings of real ones.

The source distribution of python-kasa has to be importable (folder first on PYTHONPATH, for its
`tests`). Arguments: JSON objects, one for each plug:

    {"fixture": "smart/P110(EU)_1.0_1.2.3.json", "version": 2, "is_on": true, "changes": {…}, "lasts": 9}

`changes` are merged into the recording; a session lasts for so many requests. Prints the ports as a JSON list. For each line on standard
input it prints what is true of all plugs, whatever they say: relays, handshakes and logins.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from aiohttp import web
from kasa import Credentials
from kasa.exceptions import DeviceError
from kasa.transports.klaptransport import (
    KlapEncryptionSession,
    KlapTransport,
    KlapTransportV2,
)

from tests.fakeprotocol_iot import FakeIotTransport
from tests.fakeprotocol_smart import FakeSmartTransport

# The fakes note there what their recordings lack.
pytest.fixtures_missing_methods = {}
FIXTURES = Path(sys.modules["tests"].__path__[0]) / "fixtures"
ACCOUNT = Credentials("me@example.org", "hush-ö")


def merge(old, new):
    """Puts the values of `new` into `old`, at any depth; a list goes by its positions."""
    for key, value in new.items():
        key = int(key) if isinstance(old, list) else key
        if isinstance(value, dict) and not isinstance(old, list) and key not in old:
            old[key] = {}
        if isinstance(value, dict):
            merge(old[key], value)
        else:
            old[key] = value


class Smart:
    """A plug or a strip that speaks as Tapo does."""

    def __init__(self, name, data, is_on):
        for part in [data, *data.get("child_devices", {}).values()]:
            if "device_on" in part["get_device_info"]:
                part["get_device_info"]["device_on"] = is_on
        self.fake = FakeSmartTransport(data, name)

    async def answer(self, text):
        """A command that its fake does not know is an exception there and an error here."""
        try:
            return await self.fake.send(text)
        except DeviceError as error:
            code = error.error_code.value
            return {"result": {"responseData": {"error_code": code}}, "error_code": 0}

    def relays(self):
        """By position."""
        children = self.fake.info.get("get_child_device_list", {}).get("child_device_list")
        if not children:
            return [self.fake.info["get_device_info"]["device_on"]]
        return [child["device_on"] for child in sorted(children, key=lambda each: each["position"])]


class Iot:
    """A plug or a strip that speaks as Kasa does."""

    def __init__(self, name, data, is_on):
        info = data["system"]["get_sysinfo"]
        for part in info.get("children", []):
            part["state"] = int(is_on)
        if "relay_state" in info:
            info["relay_state"] = int(is_on)
        # The fake would make a meter of its own.
        data.setdefault("emeter", {"err_code": -1, "err_msg": "module not support"})
        self.fake = FakeIotTransport(data, name)

    async def answer(self, text):
        """An error of a module has no module around it in the fake."""
        return await self.fake.send(json.loads(text))

    def relays(self):
        """In their order."""
        info = self.fake.proto["system"]["get_sysinfo"]
        children = info.get("children")
        states = [child["state"] for child in children] if children else [info["relay_state"]]
        return [state == 1 for state in states]


class Device:
    """The HTTP around a plug."""

    def __init__(self, made):
        name = made["fixture"]
        data = json.loads((FIXTURES / name).read_text())
        merge(data, made.get("changes", {}))
        family = Iot if name.startswith("iot/") else Smart
        self.plug = family(name, data, made.get("is_on", True))
        self.way = KlapTransportV2 if made.get("version", 2) == 2 else KlapTransport
        self.owner = self.way.generate_auth_hash(ACCOUNT)
        self.session = None
        self.cookie = None
        self.handshakes = self.logins = 0
        self.lasts = made.get("lasts", 1000)

    async def handshake1(self, request):
        self.handshakes += 1
        self.local, self.remote = await request.read(), os.urandom(16)
        self.session, self.cookie = None, os.urandom(8).hex().upper()
        proof = self.way.handshake1_seed_auth_hash(self.local, self.remote, self.owner)
        answer = web.Response(body=self.remote + proof)
        answer.headers["Set-Cookie"] = f"TP_SESSIONID={self.cookie};TIMEOUT=86400"
        return answer

    async def handshake2(self, request):
        self.logins += 1
        proof = self.way.handshake2_seed_auth_hash(self.local, self.remote, self.owner)
        if not self.is_known(request) or await request.read() != proof:
            return web.Response(status=403)
        self.session = KlapEncryptionSession(self.local, self.remote, self.owner)
        self.left = self.lasts
        return web.Response()

    async def request(self, request):
        if self.session is None or not self.is_known(request) or self.left == 0:
            return web.Response(status=403)
        self.left -= 1
        session, number, body = self.session, int(request.query["seq"]), await request.read()
        # Written as the client writes it, so that its signature is the one that it should have.
        if number != session._seq + 1:
            return web.Response(status=400)
        session._seq = number
        session._generate_cipher()
        text = session.decrypt(body)
        session._seq = number - 1
        if session.encrypt(text)[0] != body:
            return web.Response(status=400)
        answer = await self.plug.answer(text)
        session._seq = number - 1
        return web.Response(body=session.encrypt(json.dumps(answer))[0])

    def is_known(self, request):
        return request.headers.get("Cookie") == f"TP_SESSIONID={self.cookie}"

    async def start(self):
        """Listens; returns the port."""
        app = web.Application()
        for path in ["handshake1", "handshake2", "request"]:
            app.router.add_post(f"/app/{path}", getattr(self, path))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    def truth(self):
        return {"relays": self.plug.relays(), "handshakes": self.handshakes, "logins": self.logins}


async def main():
    devices = [Device(json.loads(text)) for text in sys.argv[1:]]
    print(json.dumps([await device.start() for device in devices]), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps([device.truth() for device in devices]), flush=True)


asyncio.run(main())
