"""Waits for a fresh Home Assistant, makes its first user, and prints a long-lived token of that user."""

import asyncio
import sys

import aiohttp

URL = sys.argv[1]
CLIENT = URL + "/"


async def post(session, path, **body):
    async with session.post(URL + path, **body) as answer:
        answer.raise_for_status()
        return await answer.json()


async def first_token(session):
    """As the browser does it: the first user, a code, a token for half an hour."""
    user = {"name": "others", "username": "others", "password": "others", "language": "en", "client_id": CLIENT}
    code = (await post(session, "/api/onboarding/users", json=user))["auth_code"]
    grant = {"grant_type": "authorization_code", "code": code, "client_id": CLIENT}
    return (await post(session, "/auth/token", data=grant))["access_token"]


async def lasting_token(session, token):
    """Such tokens are given out by the WebSocket alone."""
    async with session.ws_connect(URL + "/api/websocket") as socket:
        await socket.receive_json()
        await socket.send_json({"type": "auth", "access_token": token})
        await socket.receive_json()
        await socket.send_json({"id": 1, "type": "auth/long_lived_access_token", "client_name": "fence", "lifespan": 1})
        return (await socket.receive_json())["result"]


async def wait_until_running(session, token):
    """The port is open before the switches are there."""
    while True:
        async with session.get(URL + "/api/config", headers={"Authorization": "Bearer " + token}) as answer:
            config = await answer.json()
        # Where its configuration is not understood or its port is taken, it runs without the switches.
        assert not config["recovery_mode"], config
        if config["state"] == "RUNNING":
            return
        await asyncio.sleep(0.1)


async def main():
    async with aiohttp.ClientSession() as session:
        token = await first_token(session)
        await wait_until_running(session, token)
        print(await lasting_token(session, token))


asyncio.run(main())
