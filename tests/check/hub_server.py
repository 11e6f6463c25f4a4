#!/usr/bin/env python3
"""A hub on this machine for tests/unit/test_tools_pull.c: two ports, the hub's own and the "other host" that it redirects to.

    python3 tests/check/hub_server.py LOG

Prints both port numbers and serves until its standard input ends.  LOG gets a line a request: which port, path, the
Authorization and Range headers.  What a repository does wrong is in its name; see `answer`.
"""
import hashlib
import http.server
import json
import random
import sys
import threading
import urllib.parse

BIG = random.Random(7).randbytes(300_000)
FILES = {"config.json": b'{"a": 1}\n', "model.safetensors": BIG, "sub dir/notes.txt": b"hello\n" * 10, "empty.txt": b"",
         ".gitattributes": b"x\n"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
log, seen, ports = open(sys.argv[1], "a", buffering=1), {}, []


def git_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listing(repo):
    files = []
    for name, data in FILES.items():
        row = {"rfilename": name, "size": len(data), "blobId": git_id(data)}
        if name.endswith(".safetensors"):
            row["lfs"] = {"sha256": hashlib.sha256(data if repo != "wrong" else b"other").hexdigest(), "size": len(data)}
            row["blobId"] = git_id(b"version https://git-lfs.github.com/spec/v1\n")
            row["size"] += {"short": 1, "long": -1, "huge": 10 ** 15}.get(repo, 0)
        elif repo == "wronggit":
            row["blobId"] = git_id(b"other")
        files.append(row)
    return {"id": "t/" + repo, "sha": COMMIT, "siblings": files}


def modelscope():
    files = [{"Path": n, "Type": "blob", "Size": len(d), "Sha256": hashlib.sha256(d).hexdigest()} for n, d in FILES.items()]
    return {"Code": 200, "Data": {"Files": files + [{"Path": "sub dir", "Type": "tree", "Size": 0, "Sha256": ""}]}, "Success": True}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def serve(self, data, ranges=True, shift=0):
        asked = self.headers.get("Range")
        if not asked or not ranges:
            return self.reply(200, data)
        first = int(asked[len("bytes="):].rstrip("-"))
        if first >= len(data):
            return self.reply(416)
        self.reply(206, data[first:], [("Content-Range", f"bytes {first + shift}-{len(data) - 1}/{len(data)}")])

    def go(self, where):
        self.reply(302, b"<html>moved</html>", [("Location", where)])

    def do_GET(self):
        host = "main" if self.server.server_port == ports[0] else "other"
        log.write(f"{host} {self.path} auth={self.headers.get('Authorization')} range={self.headers.get('Range')}\n")
        url = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(url.path), urllib.parse.parse_qs(url.query)
        count = seen[host, path] = seen.get((host, path), 0) + 1
        if host == "other":
            good = f"http://127.0.0.1:{ports[0]}/t/good/resolve/x/model.safetensors"
            return self.go(good) if path == "/back" else self.serve(BIG)
        if path == "/api/v1/models/t/ms/repo/files" and query.get("Revision") == ["master"] and query.get("Recursive") == ["true"]:
            return self.reply(200, json.dumps(modelscope()).encode())
        if path == "/api/v1/models/t/ms/repo" and query.get("FilePath", [""])[0] in FILES:
            return self.serve(FILES[query["FilePath"][0]])
        part = path.split("/")
        if part[1:3] == ["api", "models"] and len(part) == 7 and part[5:] == ["revision", "main"] and query == {"blobs": ["true"]}:
            return self.answer_list(part[4], count)
        if len(part) > 5 and part[1] == "t" and part[3] == "resolve":
            return self.answer(part[2], "/".join(part[5:]), count)
        self.reply(404)

    def answer_list(self, repo, count):
        if repo == "denied" or (repo == "private" and self.headers.get("Authorization") != "Bearer hf_secret"):
            return self.reply(401, b'{"error": "no"}')
        if repo == "missing":
            return self.reply(404)
        if repo == "html":
            return self.reply(200, b"<html>hello</html>")
        if repo == "down" or (repo == "busy" and count < 3):
            return self.reply(503)
        self.reply(200, json.dumps(listing(repo)).encode())

    def answer(self, repo, name, count):
        data = FILES.get(name)
        if data is None or name != "model.safetensors":
            return self.serve(data) if data is not None else self.reply(404)
        other = f"http://127.0.0.1:{ports[1]}"
        if repo == "cut" and count == 1 or repo == "norange" and count == 1:
            return self.reply(200, data[:200_000], length=len(data))
        if repo == "trickle":                      # every answer is cut after a few bytes
            asked = self.headers.get("Range")
            first = int(asked[len("bytes="):].rstrip("-")) if asked else 0
            piece = data[first:first + 40_000]
            place = [("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")]
            return self.reply(206 if asked else 200, piece, place, len(data) - first)
        if repo == "norange":
            return self.serve(data, ranges=False)
        if repo == "stuck":                        # never gets further, whatever is asked
            return self.reply(200, data[:1000], length=len(data))
        if repo == "badrange":
            return self.serve(data, shift=1)
        if repo == "busy" and count < 3:
            return self.reply(503)
        if repo == "denied2":
            return self.reply(403)
        where = {"redirect": other + "/file", "back": other + "/back", "same": "/t/good/resolve/x/model.safetensors",
                 "loop": self.path, "scheme": "file:///etc/passwd", "user": f"http://u:p@127.0.0.1:{ports[1]}/file"}.get(repo)
        return self.go(where) if where else self.serve(data)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):                    # a client that hangs up is part of the test
        pass


servers = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
ports += [s.server_port for s in servers]
for s in servers:
    threading.Thread(target=s.serve_forever, daemon=True).start()
print(*ports, flush=True)
sys.stdin.read()
