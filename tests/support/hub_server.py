"""A server on loopback that speaks the hub's protocol, for the real clients, and misbehaves where it is told to."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

_LARGE = 100_000  # bytes from which a file is stored by its SHA-256, as Git LFS does
_API = re.compile(
    r"/api/(models|datasets)/(?P<id>[^/]+/[^/?]+)(/(?P<what>revision|tree)/(?P<revision>[^/?]+))?/?(\?.*)?"
)
_FILE = re.compile(r"/(?P<data>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repository:
    """A folder under a commit.

    Attributes:
        faults: by file, what to answer the next times instead: a status, ``cut`` or ``corrupt``.
        status: what to answer for the repository as a whole, once something is set.
    """

    folder: Path
    commit: str
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    status: int | None = None

    @cached_property
    def files(self) -> dict[str, dict[str, object]]:
        return {
            path.relative_to(self.folder).as_posix(): _described(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


def _described(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if size >= _LARGE:
        return {"oid": sha256[:40], "size": size, "lfs": {"oid": sha256, "size": size, "pointerSize": 134}}
    content = path.read_bytes()
    return {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), "size": size}


class Hub(ThreadingHTTPServer):
    """The server, running from the start.

    Attributes:
        repositories: by id.
        requests: what it was asked, in order.
    """

    def __init__(self, repositories: dict[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.requests = repositories, []
        self.address = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *words: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        found = _API.fullmatch(self.path) or _FILE.fullmatch(self.path.partition("?")[0])
        repository = found and self.server.repositories.get(found["id"])
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif repository.status is not None:
            self._refuse(repository.status, "RepoNotFound")
        elif found["revision"] not in (None, "main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif found.re is _API:
            self._describe(repository, found)
        elif found["path"] not in repository.files:
            self._refuse(404, "EntryNotFound")
        else:
            self._send_file(repository, found["path"], body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _describe(self, repository: Repository, found: re.Match[str]) -> None:
        if found["what"] == "tree":
            answer = [{"type": "file", "path": path, **what} for path, what in repository.files.items()]
        else:
            files = [{"rfilename": path} for path in repository.files]
            answer = {"id": found["id"], "sha": repository.commit, "siblings": files, "private": False, "tags": []}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_file(self, repository: Repository, path: str, body: bool) -> None:
        planned = repository.faults.get(path, [])
        fault = planned.pop(0) if planned and body else None
        if isinstance(fault, int):
            return self._refuse(fault, "Unknown")
        what, content = repository.files[path], (repository.folder / path).read_bytes()
        if fault == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{what["lfs"]["oid"] if "lfs" in what else what["oid"]}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if body:
            self.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)
            self.close_connection = self.close_connection or fault == "cut"
