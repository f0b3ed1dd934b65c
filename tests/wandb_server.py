"""A small W&B server on loopback: it speaks the part of the protocol that wandb-core 0.31 uses, and keeps what it got.

    python tests/wandb_server.py [arguments of s9.train]

trains for a moment with `wandb=online` against it and prints what it received of the run.

Learned from the requests of wandb-core 0.31.0 and the GraphQL documents inside it. What W&B's own server does with a
line that comes twice is not documented; here the later one takes the place of the earlier, as its offset says.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

KEY = "0123456789" * 4  # as a W&B key looks
ENTITY = "me"  # whose key it is
HISTORY, EVENTS, SUMMARY = "wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json"


@dataclass
class ReceivedRun:
    """What the server has of one run.

    facts: the variables of its UpsertBucket requests: displayName, groupName, tags, jobType, notes.
    lines: of each streamed file by their number; files: uploaded bytes by name.
    exit_code: None while the run is not known to have ended.
    """

    entity: str
    project: str
    id: str
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    starts: int = 0

    @property
    def path(self) -> str:
        return f"{self.entity}/{self.project}/{self.id}"

    def rows(self, name: str = HISTORY) -> list[dict[str, Any]]:
        """The lines of a streamed file, in their order."""
        return [json.loads(line) for _, line in sorted(self.lines.get(name, {}).items())]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if "epoch" in row]

    @property
    def summary(self) -> dict[str, Any]:
        return self.rows(SUMMARY)[-1] if self.lines.get(SUMMARY) else {}

    @property
    def state(self) -> str:
        """As W&B shows it: running, finished or failed."""
        return "running" if self.exit_code is None else "failed" if self.exit_code else "finished"

    def media(self, key: str) -> list[bytes]:
        """The files that the newest row with `key` refers to: a table's, a picture's, or those of several pictures."""
        value = next(row[key] for row in reversed(self.rows()) if key in row)
        if "_latest_artifact_path" in value and "path" not in value:
            raise AssertionError(f"{key} is an artifact only: {value}")
        return [self.files[name] for name in value.get("filenames", [value.get("path")])]

    def table(self, key: str) -> dict[str, Any]:
        """columns and data."""
        content: dict[str, Any] = json.loads(self.media(key)[0])
        return content


@dataclass
class Artifact:
    name: str
    type: str
    digest: str
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class WandbServer:
    """Listens from the start; `stop` and `start` are a network that goes and comes back. Keeps all across them."""

    def __init__(self) -> None:
        self.runs: dict[str, ReceivedRun] = {}  # by id
        self.artifacts: dict[str, Artifact] = {}  # by id
        self.views: dict[str, dict[str, Any]] = {}  # by id, as the newest UpsertView2 request has them
        self.sweep = ""  # its definition as YAML
        self.commands: list[dict[str, Any]] = []  # for the sweep's agent
        self.unknown: set[str] = set()  # GraphQL operations that have no answer here
        self.keys: set[str] = set()  # Authorization headers that came
        self.lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def run(self) -> ReceivedRun:
        """The only run."""
        (run,) = self.runs.values()
        return run

    def start(self) -> None:
        self.listener = _Listener(("127.0.0.1", self.port), _Handler)
        self.listener.owner = self
        self.port = self.listener.server_address[1]
        self.thread = threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def stop(self) -> None:
        """From now on connections are refused, and those that are open get no answer."""
        self.listener.owner = None
        self.listener.shutdown()
        self.listener.server_close()
        self.thread.join()

    # What is asked

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = found.group(1) if found else query
        answer: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, f"_answer_{name.lower()}", None)
        if answer is None:
            self.unknown.add(name)
            return {}
        return answer(variables)

    def _answer_viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def _answer_getdefaultentity(self, v: dict[str, Any]) -> dict[str, Any]:
        return self._answer_viewer(v)

    def _answer_serverfeaturesquery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _answer_organizationcoreweaveorganizationid(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": None}}

    def _answer_runresumestatus(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        of = run if run is not None and run.project == v["project"] else None
        return {"model": {**_project(v.get("entity") or ENTITY, v["project"]), "bucket": of and _resumed(of)}}

    def _answer_upsertbucket(self, v: dict[str, Any]) -> dict[str, Any]:
        inserted = v["name"] not in self.runs
        if inserted:
            self.runs[v["name"]] = ReceivedRun(v["entity"] or ENTITY, v["project"], v["name"])
        run = self.runs[v["name"]]
        if v.get("host"):  # only the request that a process starts with has it
            run.starts += 1
            run.exit_code = None
        run.facts |= {key: value for key, value in v.items() if value is not None}
        if v.get("config"):
            run.config = {key: value["value"] for key, value in json.loads(v["config"]).items()}
        bucket = _bucket(run) | {"project": _project(run.entity, run.project), "description": "", "sweepName": None}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _answer_createrunfiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/run/{v['run']}/{name}"} for name in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def _answer_artifacttype(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _answer_fetchartifactdigestalgorithm(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifactType": None}}

    def _answer_xxhashdigestsenabled(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _answer_createartifact(self, v: dict[str, Any]) -> dict[str, Any]:
        asked = v["input"]
        same = [i for i, a in self.artifacts.items() if (a.digest, a.committed) == (asked["digest"], True)]
        number = same[0] if same else f"artifact{len(self.artifacts)}"
        if not same:
            name = asked.get("artifactCollectionName") or (asked.get("artifactCollectionNames") or ["?"])[0]
            self.artifacts[number] = Artifact(name, asked.get("artifactTypeName", ""), asked["digest"])
        state = "COMMITTED" if same else "PENDING"
        artifact = {"id": number, "state": state, "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"__typename": "CreateArtifactPayload", "artifact": artifact}}

    def _answer_createartifactmanifest(self, v: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.url}/artifact/{v['artifactID']}/{v['name']}"
        file = {"id": "f", "uploadUrl": place, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": v["artifactID"], "file": file}}}

    def _answer_updateartifactmanifest(self, v: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.url}/artifact/{v['artifactManifestID']}/wandb_manifest.json"
        file = {"id": "f", "uploadUrl": place, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": v["artifactManifestID"], "file": file}}}

    def _answer_createartifactfiles(self, v: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": f["name"],
                "uploadUrl": f"{self.url}/artifact/{f['artifactID']}/{f['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": f["artifactID"]},
            }
            for f in v["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _answer_commitartifact(self, v: dict[str, Any]) -> dict[str, Any]:
        artifact = self.artifacts[v["artifactID"]]
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": artifact.digest}}}

    def _answer_upsertview2(self, v: dict[str, Any]) -> dict[str, Any]:
        number = v.get("id") or f"view{len(self.views)}"
        inserted = number not in self.views
        self.views[number] = dict(v)
        return {"upsertView": {"view": {"id": number, "name": v["name"]}, "inserted": inserted}}

    def _answer_view(self, v: dict[str, Any]) -> dict[str, Any]:
        found = [
            {"node": {"id": number, "displayName": view["displayName"], "spec": view["spec"]}}
            for number, view in self.views.items()
            if (view["entityName"], view["projectName"]) == (v["entityName"], v["name"])
            and view["name"] == v["viewName"]
        ]
        return {"project": {"allViews": {"edges": found}}}

    def _answer_sweepwithruns(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"sweep": {"config": self.sweep, "runs": {"edges": []}}}}

    def _answer_createagent(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent"}}}

    def _answer_heartbeat(self, _: dict[str, Any]) -> dict[str, Any]:
        """A command for the agent, while there are any."""
        commands = [self.commands.pop(0)] if self.commands else []
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    def stream(self, run_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """POST /files/ENTITY/PROJECT/RUN/file_stream: lines of files from an offset on, and the end of a run."""
        run = self.runs[run_id]
        for name, part in (sent.get("files") or {}).items():
            lines = run.lines.setdefault(name, {})
            lines.update(enumerate(part["content"], part["offset"]))
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]
        return {"limits": {}}

    def upload(self, path: str, content: bytes) -> None:
        kind, owner, name = path.lstrip("/").split("/", 2)
        (self.runs[owner] if kind == "run" else self.artifacts[owner]).files[unquote(name)] = content

    # What came

    def text(self) -> str:
        """What it received, run by run, for people to read."""
        said = []
        for run in self.runs.values():
            shown = {key: run.facts[key] for key in ("displayName", "groupName", "tags", "jobType") if key in run.facts}
            said += [f"run {run.path}: {run.state}, exit code {run.exit_code}, started {run.starts} time(s)"]
            said += [f"  {key}: {value}" for key, value in shown.items()]
            said += [f"  config: {', '.join(sorted(key for key in run.config if key != '_wandb'))}"]
            for row in run.rows():
                keys = sorted(key for key in row if not key.startswith("_"))
                values = [f"{key}={row[key]:.4g}" if isinstance(row[key], float | int) else key for key in keys]
                said += [f"  step {row['_step']}: {', '.join(values)}"]
            for key, value in sorted(run.summary.items()):
                if not key.startswith("_") and not (isinstance(value, dict) and "_type" in value):
                    said += [f"  summary {key}: {json.dumps(value)}"]
            said += [f"  file {name}: {len(content):,} bytes" for name, content in sorted(run.files.items())]
        for artifact in self.artifacts.values():
            state = "committed" if artifact.committed else "not committed"
            said += [f"artifact {artifact.name} ({artifact.type}), {state}: {', '.join(sorted(artifact.files))}"]
        return "\n".join([*said, *(f"no answer to {name}" for name in sorted(self.unknown))])


def _project(entity: str, name: str) -> dict[str, Any]:
    return {"id": "p", "name": name, "entity": {"id": "e", "name": entity}}


def _bucket(run: ReceivedRun) -> dict[str, Any]:
    config = json.dumps({key: {"value": value} for key, value in run.config.items()})
    shown = {"id": run.id, "name": run.id, "displayName": run.facts.get("displayName"), "config": config}
    return shown | {"historyLineCount": len(run.lines.get(HISTORY, {}))}


def _resumed(run: ReceivedRun) -> dict[str, Any]:
    tail = lambda name: json.dumps([line for _, line in sorted(run.lines.get(name, {}).items())][-1:])  # noqa: E731
    return _bucket(run) | {
        "summaryMetrics": json.dumps(run.summary),
        "logLineCount": len(run.lines.get("output.log", {})),
        "eventsLineCount": len(run.lines.get(EVENTS, {})),
        "historyTail": tail(HISTORY),
        "eventsTail": tail(EVENTS),
        "tags": run.facts.get("tags") or [],
        "notes": run.facts.get("notes"),
        "wandbConfig": json.dumps({"t": run.config.get("_wandb", {}).get("t", {})}),
    }


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    owner: WandbServer | None = None  # None: gone

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is nobody's news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        owner = self.server.owner
        if owner is None:
            self.close_connection = True
            return
        with owner.lock:
            owner.keys.add(self.headers.get("Authorization", ""))
            if self.path == "/graphql":
                asked = json.loads(body)
                said = {"data": owner.graphql(asked["query"], asked.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                said = owner.stream(self.path.split("/")[-2], json.loads(body))
            else:
                owner.upload(self.path, body)
                said = {}
        content = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    import sys
    import tempfile
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.doors import HERE, SMALL, run

    server = WandbServer()
    arguments = sys.argv[1:] or ["trainer.epochs=3"]
    small = [word for word in SMALL if word != "wandb=disabled"]
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            Path(folder),
            "train",
            *small,
            HERE,
            "wandb=online",
            *arguments,
            WANDB_BASE_URL=server.url,
            WANDB_API_KEY=KEY,
        )
    print(done.stdout, done.stderr, server.text(), sep="\n")
    server.stop()


if __name__ == "__main__":
    main()
