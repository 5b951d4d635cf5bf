"""httpbin on a port that the kernel chooses, which it prints; its log has a line for each request."""

from httpbin import app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
