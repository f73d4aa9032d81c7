"""python listener.py PORT TOKEN ID: welcomes commserver and pushes one attempt to it."""
import json, socketserver, sys

port, token, id = sys.argv[1:]

class Link(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            print(line.decode(), end="", flush=True)
            packet = json.loads(line)
            if packet.get("cmd") == "HANDSHAKE" and packet.get("TOKEN") == token:
                exercise = json.dumps({"cmd": "EXERCISE", "id": id}) + "\n"
                self.wfile.write(line + exercise.encode())

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(port)), Link).serve_forever()
