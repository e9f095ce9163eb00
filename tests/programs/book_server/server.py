"""An HTTP server as its author would write it, without any SDK: `python server.py [PORT]`."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BOOKS = {}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        book = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("adds", book["title"], flush=True)
        if not book["title"]:
            return self.answer(422, "a book needs a title", "text/plain")
        number = str(len(BOOKS) + 1)
        BOOKS[number] = {**book, "added_by": self.headers.get("User-ID")}
        self.answer(200, json.dumps(number))

    def do_GET(self):
        path = urlsplit(self.path)
        _, where, *rest = path.path.split("/")
        asked = parse_qs(path.query)
        if where == "books" and rest:
            book = BOOKS.get(unquote(rest[0]))
            return self.answer(200, json.dumps(book)) if book else self.answer(404, json.dumps({"detail": "no book"}))
        if where == "books":
            titles = [book["title"] for book in BOOKS.values()]
            words = asked.get("word", [])
            found = [title for title in titles if all(word in title for word in words)]
            return self.answer(200, json.dumps(found[: int(asked.get("limit", ["100"])[0])]))
        if where == "slow":
            while not os.path.exists(asked["until"][0]):
                time.sleep(0.01)
            return self.answer(200, "1")
        if where == "text":
            return self.answer(200, "plain text", "text/plain")
        if where == "moved":
            self.send_response(302)
            self.send_header("Location", "/books")
            self.end_headers()
            return None
        if where == "large":
            return self.answer(200, json.dumps("x" * int(asked["size"][0])))
        if where == "gone":
            self.connection.close()
            return None
        return self.answer(500, "Traceback: boom")

    def do_DELETE(self):
        BOOKS.clear()
        self.answer(200, "true")

    def answer(self, status, text, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format, *args):
        print(self.command, self.path, flush=True)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Handler).serve_forever()
