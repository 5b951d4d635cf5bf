# A plug with a page that switches it on, one that switches it off, and one that tells its relay.
import http.server


class Plug(http.server.BaseHTTPRequestHandler):
    relay = b"on"

    def do_GET(self):
        if self.path in ("/on", "/off"):
            Plug.relay = self.path[1:].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(Plug.relay)))
        self.end_headers()
        self.wfile.write(Plug.relay)


http.server.HTTPServer(("127.0.0.1", 8080), Plug).serve_forever()
