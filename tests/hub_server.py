"""A model hub on this machine's own address: the upload and download protocol of the hub, over real HTTP.

It speaks what huggingface_hub speaks without xet: who-am-i, repositories and branches, preupload, the LFS batch with
single and multipart uploads, verify, commit, tree and resolve. What it is told to refuse, drop or hold, it does.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

_LFS = ("*.safetensors", "*.gguf", "tokenizer.json")
_FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass(frozen=True)
class Request:
    """One request as it arrived: `size` is how many bytes of a body were read before it was dropped or answered."""

    method: str
    path: str
    status: int
    size: int
    has_token: bool


@dataclass
class Rule:
    """What goes wrong with requests whose `METHOD path` the pattern finds."""

    pattern: re.Pattern[str]
    times: int
    status: int | None = None
    body: str = ""
    drop_after: int | None = None
    hold: threading.Event | None = None
    held: threading.Event = field(default_factory=threading.Event)


@dataclass
class Repo:
    """One repository: commits by name, and what its branches stand for."""

    is_private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """The name of a new commit on a branch."""
        parent = self.branches.get(branch, "")
        listing = "".join(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
        oid = hashlib.sha1(f"{parent}\n{len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch or a commit's own name stands for."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubServer:
    """The hub's state; every test may look at it, and tell it what is to go wrong."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, str]] = {}
        self.organisations: dict[str, set[str]] = {}
        self.repos: dict[str, Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_bytes: int | None = None
        self.ignored: set[str] = set()
        self.makes_all_public = False
        self.log: list[Request] = []
        self.rules: list[Rule] = []
        self.lock = threading.RLock()
        self.url = ""

    def add_user(self, name: str, token: str, *, role: str = "write") -> None:
        self.tokens[token] = (name, role)

    def add_repo(self, name: str, *, is_private: bool, files: dict[str, bytes] | None = None) -> Repo:
        repo = self.repos[name] = Repo(is_private)
        repo.commit("main", {**_FIRST_FILES, **(files or {})}, "initial commit")
        return repo

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repo = self.repos[name]
        return repo.commits[repo.branches[branch]]

    def fail(self, pattern: str, *, status: int, times: int = 1, body: str = "") -> Rule:
        """Answer the next `times` requests that `pattern` finds with `status`; for 200 `body` is the raw answer."""
        return self._add(Rule(re.compile(pattern), times, status=status, body=body))

    def drop(self, pattern: str, *, after: int, times: int = 1) -> Rule:
        """Close the connection of the next `times` such requests after so many bytes of their body."""
        return self._add(Rule(re.compile(pattern), times, drop_after=after))

    def hold(self, pattern: str, *, after: int) -> Rule:
        """Stop reading the next such request after so many bytes, until the rule's `hold` is set; then drop it."""
        return self._add(Rule(re.compile(pattern), 1, drop_after=after, hold=threading.Event()))

    def _add(self, rule: Rule) -> Rule:
        with self.lock:
            self.rules.append(rule)
        return rule

    def rule_for(self, request: str) -> Rule | None:
        with self.lock:
            for rule in self.rules:
                if rule.times > 0 and rule.pattern.search(request):
                    rule.times -= 1
                    return rule
        return None

    def uploads(self) -> list[str]:
        """The sha256 of every large file that arrived whole, in order, once for each time that it was sent."""
        done = [r for r in self.log if r.method == "PUT" and r.status == 200]
        return [match[1] for r in done if (match := re.search(r"/storage/([0-9a-f]{64})", r.path))]

    def requests(self, pattern: str) -> list[Request]:
        return [request for request in self.log if re.search(pattern, f"{request.method} {request.path}")]


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class _Dropped(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def serve(self) -> None:
        """Read a request, do to it what a rule says, or answer it."""
        self.read, self.rule = 0, self.hub.rule_for(f"{self.command} {self.path}")
        status = 0
        try:
            body = self._body()
            if self.rule and self.rule.status == 200:
                status, headers, answer = 200, {"Content-Type": "text/html"}, self.rule.body.encode()
            elif self.rule and self.rule.status:
                raise _Refusal(self.rule.status, self.rule.body)
            else:
                status, headers, answer = self._answer(body)
        except _Dropped:
            self._note(0)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        except _Refusal as refusal:
            status, answer = refusal.status, json.dumps({"error": refusal.message}).encode()
            headers = {"Content-Type": "application/json", "X-Error-Message": refusal.message.replace("\n", " ")}
            headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        self._note(status)
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answer))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

    def _note(self, status: int) -> None:
        has_token = "Authorization" in self.headers
        with self.hub.lock:
            self.hub.log.append(Request(self.command, self.path, status, self.read, has_token))

    def _body(self) -> bytes:
        """The body, by its length or in chunks; a rule may cut it off."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = iter(self._chunks())
        else:
            pieces = iter(self._pieces(int(self.headers.get("Content-Length", 0))))
        found = bytearray()
        limit = self.rule.drop_after if self.rule else None
        for piece in pieces:
            found += piece
            self.read = len(found)
            if limit is not None and self.read >= limit:
                break
        if limit is not None and self.rule:
            self.rule.held.set()
            if self.rule.hold:
                self.rule.hold.wait(120)
            raise _Dropped
        return bytes(found)

    def _pieces(self, left: int) -> Iterator[bytes]:
        while left > 0:
            piece = self.rfile.read(min(left, 1 << 10))
            if not piece:
                raise _Dropped
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield from self._pieces(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        for methods, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if match and self.command in methods:
                with self.hub.lock:
                    answer = handler(self, body, *map(unquote, match.groups()))
                if isinstance(answer, tuple):
                    return answer
                return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        raise _Refusal(404, f"no such address: {parts.path}")

    def user(self) -> tuple[str, str]:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise _Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def may_write(self, owner: str) -> bool:
        name, role = self.user()
        return role == "write" and (owner == name or name in self.hub.organisations.get(owner, set()))

    def repo(self, name: str, *, writes: bool = False) -> Repo:
        repo, owner = self.hub.repos.get(name), name.split("/")[0]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        is_known = token in self.hub.tokens
        if repo is None or (repo.is_private and not (is_known and self.may_write(owner))):
            raise _Refusal(404 if is_known else 401, "Repository not found", "RepoNotFound")
        if writes and not self.may_write(owner):
            raise _Refusal(403, "You don't have the rights to write to this repository")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> str:
        oid = repo.resolve(revision)
        if oid is None:
            raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_lfs(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _LFS)


def harnesses(handler: _Handler, body: bytes) -> Any:
    """What the library asks for before anything else, to name the program that called it."""
    return {"standardEnvVars": [], "harnesses": {}}


def whoami(handler: _Handler, body: bytes) -> Any:
    name, role = handler.user()
    token = {"displayName": "test", "role": role}
    return {"type": "user", "name": name, "orgs": [], "auth": {"type": "access_token", "accessToken": token}}


def create_repo(handler: _Handler, body: bytes) -> Any:
    asked = json.loads(body)
    owner = asked.get("organization") or handler.user()[0]
    full = f"{owner}/{asked['name']}"
    if not handler.may_write(owner):
        raise _Refusal(403, f"You don't have the rights to create a model under the namespace {owner}")
    if full in handler.hub.repos:
        raise _Refusal(409, "You already created this model repo")
    handler.hub.add_repo(full, is_private=asked.get("visibility") == "private" and not handler.hub.makes_all_public)
    return {"url": f"{handler.hub.url}/{full}", "name": full, "id": "0" * 24}


def model_info(handler: _Handler, body: bytes, name: str, revision: str = "main") -> Any:
    repo = handler.repo(name)
    oid = handler.commit_of(repo, revision)
    has_blobs = "blobs" in handler.query
    siblings = [
        {"rfilename": path} | (_blob(path, content) if has_blobs else {}) for path, content in _sorted(repo, oid)
    ]
    return {"_id": "0" * 24, "id": name, "private": repo.is_private, "sha": oid, "siblings": siblings}


def _sorted(repo: Repo, oid: str) -> list[tuple[str, bytes]]:
    return sorted(repo.commits[oid].items())


def _blob(path: str, content: bytes) -> dict[str, Any]:
    blob = {"blobId": git_sha1(content), "size": len(content)}
    if _is_lfs(path):
        blob["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return blob


def tree(handler: _Handler, body: bytes, name: str, revision: str) -> Any:
    repo = handler.repo(name)
    found = []
    for path, content in _sorted(repo, handler.commit_of(repo, revision)):
        entry = {"type": "file", "path": path, "oid": git_sha1(content), "size": len(content)}
        if _is_lfs(path):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        found.append(entry)
    return found


def create_branch(handler: _Handler, body: bytes, name: str, branch: str) -> Any:
    repo = handler.repo(name, writes=True)
    if branch in repo.branches:
        raise _Refusal(409, "Reference already exists")
    repo.branches[branch] = repo.branches["main"]
    return {}


def validate_yaml(handler: _Handler, body: bytes) -> Any:
    handler.user()
    content = json.loads(body)["content"]
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        data, message = None, str(error)
    else:
        message = "no front matter"
    if not isinstance(data, dict):
        errors = {"errors": [{"message": message}], "warnings": []}
        return 400, {"Content-Type": "application/json"}, json.dumps(errors).encode()
    return {"errors": [], "warnings": []}


def preupload(handler: _Handler, body: bytes, name: str, revision: str) -> Any:
    repo = handler.repo(name, writes=True)
    there = repo.commits[handler.commit_of(repo, revision)]
    files = []
    for file in json.loads(body)["files"]:
        path = file["path"]
        known = there.get(path)
        oid = None if known is None else hashlib.sha256(known).hexdigest() if _is_lfs(path) else git_sha1(known)
        mode = "lfs" if _is_lfs(path) else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": path in handler.hub.ignored, "oid": oid})
    return {"files": files}


def lfs_batch(handler: _Handler, body: bytes, name: str) -> Any:
    handler.repo(name, writes=True)
    hub = handler.hub
    objects = []
    for wanted in json.loads(body)["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in hub.storage:
            href, header = f"{hub.url}/storage/{oid}?X-Signature=signed-for-a-while", {}
            if hub.part_bytes and size > hub.part_bytes:
                count = -(-size // hub.part_bytes)
                parts = {
                    str(part): f"{hub.url}/storage/{oid}/{part}?X-Signature=signed" for part in range(1, count + 1)
                }
                href, header = f"{hub.url}/complete/{oid}", {"chunk_size": str(hub.part_bytes), **parts}
            verify = {"href": f"{hub.url}/{name}.git/info/lfs/objects/verify"}
            entry["actions"] = {"upload": {"href": href, "header": header}, "verify": verify}
        objects.append(entry)
    return {"transfer": "basic", "objects": objects}


def lfs_verify(handler: _Handler, body: bytes, name: str) -> Any:
    handler.repo(name, writes=True)
    asked = json.loads(body)
    if len(handler.hub.storage.get(asked["oid"], b"")) != asked["size"]:
        raise _Refusal(404, "this object did not arrive")
    return {}


def store(handler: _Handler, body: bytes, oid: str) -> Any:
    if hashlib.sha256(body).hexdigest() != oid:
        raise _Refusal(400, "the bytes are not those of this name")
    handler.hub.storage[oid] = body
    return 200, {"ETag": f'"{oid}"'}, b""


def store_part(handler: _Handler, body: bytes, oid: str, part: str) -> Any:
    handler.hub.parts[oid, int(part)] = body
    return 200, {"ETag": f'"{part}"'}, b""


def complete(handler: _Handler, body: bytes, oid: str) -> Any:
    parts = [handler.hub.parts[oid, part["partNumber"]] for part in json.loads(body)["parts"]]
    return store(handler, b"".join(parts), oid)


def commit(handler: _Handler, body: bytes, name: str, revision: str) -> Any:
    repo = handler.repo(name, writes=True)
    head = handler.commit_of(repo, revision)
    lines = [json.loads(line) for line in body.splitlines()]
    header, files = lines[0]["value"], dict(repo.commits[head])
    if header.get("parentCommit") not in (None, head):
        raise _Refusal(412, "A commit has happened since. Please refresh and try again.")
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in handler.hub.storage:
                raise _Refusal(400, f"LFS pointer to an object that does not exist: {value['path']}")
            files[value["path"]] = handler.hub.storage[value["oid"]]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    oid = repo.commit(revision, files, header["summary"])
    url = f"{handler.hub.url}/{name}/commit/{oid}"
    return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}


def resolve(handler: _Handler, body: bytes, name: str, revision: str, path: str) -> Any:
    repo = handler.repo(name)
    oid = handler.commit_of(repo, revision)
    content = repo.commits[oid].get(path)
    if content is None:
        raise _Refusal(404, "Entry not found", "EntryNotFound")
    etag = hashlib.sha256(content).hexdigest() if _is_lfs(path) else git_sha1(content)
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Content-Type": "application/octet-stream"}
    if _is_lfs(path):
        headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
    return 200, headers, content


_NAME = r"([^/]+/[^/]+)"
ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", r"/api/agent-harnesses", harnesses),
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/repos/create", create_repo),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("GET", rf"/api/models/{_NAME}", model_info),
    ("GET", rf"/api/models/{_NAME}/revision/([^/]+)", model_info),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)", tree),
    ("POST", rf"/api/models/{_NAME}/branch/([^/]+)", create_branch),
    ("POST", rf"/api/models/{_NAME}/preupload/([^/]+)", preupload),
    ("POST", rf"/api/models/{_NAME}/commit/([^/]+)", commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/verify", lfs_verify),
    ("PUT", r"/storage/([0-9a-f]{64})", store),
    ("PUT", r"/storage/([0-9a-f]{64})/(\d+)", store_part),
    ("POST", r"/complete/([0-9a-f]{64})", complete),
    ("GET HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", resolve),
)


@contextlib.contextmanager
def serving() -> Iterator[HubServer]:
    """A hub that listens on a free port of 127.0.0.1 until the end."""
    hub = HubServer()
    methods = {f"do_{method}": _Handler.serve for method in ("GET", "HEAD", "POST", "PUT")}
    handler = type("Handler", (_Handler,), {"hub": hub} | methods)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        for rule in hub.rules:
            if rule.hold:
                rule.hold.set()
        server.shutdown()
        server.server_close()
