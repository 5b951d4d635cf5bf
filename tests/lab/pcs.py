#!/usr/bin/python3 -IS
"""pcs without the wait for its start. Under emulation Python needs half a minute to import pcs; a process that has
imported it and forks for each call needs that once. All that runs is the distribution's own pcs.

    pcs --serve      import pcs, and wait for calls
    pcs WORDS...     hand the call to the server; without one, run pcs itself
"""
import os
import socket
import sys

PCS = "/usr/sbin/pcs"
SOCKET = "/run/lab-pcs"
LIMIT = 1 << 16


def call(words):
    """Hands over folder, words and the three streams; returns the exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(SOCKET)
        except OSError:
            os.execv(PCS, [PCS, *words])
        message = "\0".join([os.getcwd(), *words])
        socket.send_fds(server, [message.encode()], [0, 1, 2])
        return int(server.recv(LIMIT) or b"1")


def serve():
    """Forks a child for each call, one at a time."""
    import site

    site.main()
    from pcs import app

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    listener.bind(SOCKET)
    os.chmod(SOCKET, 0o600)
    listener.listen()
    while True:
        client, _ = listener.accept()
        child = os.fork()
        if child == 0:
            code = answer(client, app)
            client.send(str(code).encode())
            os._exit(0)
        client.close()
        os.waitpid(child, 0)


def answer(client, app):
    """Runs pcs with the caller's words, in the caller's folder, on the caller's streams."""
    message, streams, _, _ = socket.recv_fds(client, LIMIT, 3)
    folder, *words = message.decode().split("\0")
    os.chdir(folder)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    try:
        app.main(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if sys.argv[1:] == ["--serve"]:
    serve()
else:
    sys.exit(call(sys.argv[1:]))
