"""A stand-in for the Hugging Face hub on loopback: the few endpoints by which data sets are written and read.

It remembers every byte that it was sent, so that a test can look for what must not leave a machine.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_a_test"


class StandIn:
    """The repositories by name, each a dictionary of commits (newest last) with their files, and all that was sent."""

    def __init__(self):
        self.repositories, self.sent, self.sizes = {}, [], {}
        self.endpoint = ""

    def commit(self, name, files):
        """Add a commit with these files beside those of the last one, and return its hash."""
        commits = self.repositories[name]
        whole = {**(list(commits.values())[-1] if commits else {}), **files}
        content = b"".join(path.encode() + data for path, data in sorted(whole.items()))
        oid = hashlib.sha1(content + str(len(commits)).encode()).hexdigest()
        commits[oid] = whole
        return oid

    def files(self, name, revision="main"):
        """The commit and the files of a revision; None if there is none."""
        commits = self.repositories[name]
        oid = list(commits)[-1] if revision == "main" and commits else revision
        return (oid, commits[oid]) if oid in commits else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *words):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.sent += [self.requestline.encode(), bytes(self.headers), body]
        return body

    def answer(self, content, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, code, status=404):
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def do_POST(self):
        body = self.body()
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self.answer({"error": "exists", "url": f"{self.hub.endpoint}/datasets/{name}"}, 409)
            self.hub.repositories[name] = {}
            return self.answer({"url": f"{self.hub.endpoint}/datasets/{name}"})
        name, what, revision = re.match(r"/api/datasets/([^/]+/[^/]+)/(preupload|commit)/([^?]+)", self.path).groups()
        if name not in self.hub.repositories:
            return self.refuse("RepoNotFound")
        if revision != "main":
            return self.refuse("RevisionNotFound")
        if what == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            return self.answer({"files": modes})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {line["value"]["path"]: base64.b64decode(line["value"]["content"])
                 for line in lines if line["key"] == "file"}  # fmt: skip
        self.hub.sent += files.values()
        oid = self.hub.commit(name, files)
        url = f"{self.hub.endpoint}/datasets/{name}/commit/{oid}"
        return self.answer({"success": True, "commitOid": oid, "commitUrl": url})

    def do_GET(self):
        self.body()
        path = self.path.partition("?")[0]
        if about := re.fullmatch(r"/api/datasets/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            return self.describe(about[1], about[2] or "main")
        name, revision, file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path).groups()
        oid, files = self.hub.files(name, revision)
        data = files[file]
        return self.answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=oid)

    do_HEAD = do_GET

    def describe(self, name, revision):
        if name not in self.hub.repositories:
            return self.refuse("RepoNotFound", 401)
        if (there := self.hub.files(name, revision)) is None:
            return self.refuse("RevisionNotFound")
        oid, files = there
        sizes = {path: self.hub.sizes.get(path, len(data)) for path, data in files.items()}
        siblings = [{"rfilename": path, "size": size, "blobId": "0"} for path, size in sizes.items()]
        return self.answer({"id": name, "sha": oid, "private": False, "tags": [], "siblings": siblings})


@contextmanager
def stand_in():
    """A hub for as long as the context lasts, in a thread of this process."""
    hub = StandIn()
    handler = type("OfThisHub", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
