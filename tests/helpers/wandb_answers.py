"""What the stand-in for W&B answers, and what it keeps of what it is told; no network in here."""

import base64
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass
class StoredRun:
    """A run as its client told it."""

    name: str
    entity: str = ""
    project: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # by line number
    summary: dict[str, Any] = field(default_factory=dict)
    rewritten: list[int] = field(default_factory=list)  # lines sent again with another content
    exit_code: int | None = None
    preempting: bool = False
    sessions: int = 0

    @property
    def steps(self) -> list[int]:
        return [self.rows[line]["_step"] for line in sorted(self.rows)]

    @property
    def values(self) -> dict[str, Any]:
        """The config without the client's notes and wrappings."""
        return {name: node["value"] for name, node in self.config.items() if name != "_wandb"}


class Answers:
    """The state of the service, and its answers to GraphQL questions and file streams."""

    url: str

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.uploads: dict[str, bytes] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.unknown: list[str] = []
        self.asked: Counter[str] = Counter()

    def files(self, pattern: str) -> dict[str, bytes]:
        """Uploaded files whose name matches."""
        return {name: data for name, data in self.uploads.items() if re.search(pattern, name)}

    def stream(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        """One post of a file stream."""
        run = self.runs[name]
        for file, content in (sent.get("files") or {}).items():
            for line, text in enumerate(content["content"], content["offset"]):
                if file == "wandb-history.jsonl":
                    row = json.loads(text)
                    if run.rows.get(line, row) != row:
                        run.rewritten.append(line)
                    run.rows[line] = row
                elif file == "wandb-summary.json":
                    run.summary = json.loads(text)
        run.preempting |= bool(sent.get("preempting"))
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")
        return {"exitcode": None, "limits": {}}

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """The data of a GraphQL question; None where it is not known."""
        for word, method in self.questions.items():
            if re.search(rf"\b{word}\b", query):
                self.asked[word] += 1
                return method(self, given)
        return None

    def _features(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": [], "cliVersionInfo": {"max_cli_version": "99.0.0"},
                               "latestLocalVersionInfo": None}}  # fmt: skip

    def _capabilities(self, given: dict[str, Any]) -> dict[str, Any]:
        """What the server's schema offers beyond the oldest: nothing."""
        return {
            "QueryType": {"fields": [{"name": "serverInfo"}]},
            "MutationType": {"fields": []},
            "ServerInfoType": {"fields": [{"name": "cliVersionInfo"}]},
            "ServerSettingsType": {"fields": []},
            "ArtifactInfoType": {"fields": []},
        }

    def _input_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """What an input may hold beyond what the oldest server takes: nothing."""
        return {"TypeInfo": {"inputFields": []}}

    def _organization(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def _artifact_type(self, given: dict[str, Any]) -> dict[str, Any]:
        """Of an artifact of that name; there is none before it is made."""
        return {"project": {"artifact": None}}

    def _viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        team = {"edges": [{"node": {"name": "team"}}]}
        viewer = {"id": "VXNlcjox", "entity": "team", "username": "me", "name": "me",
                  "email": "me@x", "flags": "{}", "admin": False, "teams": team}  # fmt: skip
        return {"viewer": viewer, **self._features(given)}

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(name))
        run.entity, run.project = given.get("entity") or "team", given["project"]
        run.told |= {key: value for key, value in given.items() if value is not None}
        if given.get("config"):
            run.config = json.loads(given["config"])
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _resume(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        if run is None:
            return {"model": {"id": _id("Project"), "name": given["project"], "bucket": None,
                              "entity": {"id": _id("Entity"), "name": "team"}}}  # fmt: skip
        run.sessions += 1
        tail = [json.dumps(run.rows[max(run.rows)])] if run.rows else []
        counts = {"logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(run.rows)}
        tails = {"historyTail": json.dumps(tail), "eventsTail": "[]"}
        state = {"summaryMetrics": json.dumps(run.summary), "wandbConfig": '{"t": 1}', "tags": []}
        bucket = {**self._bucket(run), **counts, **tails, **state}
        return {"model": {"id": _id("Project"), "name": run.project, "bucket": bucket,
                          "entity": {"id": _id("Entity"), "name": run.entity}}}  # fmt: skip

    def _bucket(self, run: StoredRun) -> dict[str, Any]:
        entity = {"id": _id("Entity"), "name": run.entity}
        project = {"id": _id("Project"), "name": run.project, "entity": entity}
        return {
            "id": _id(run.name), "name": run.name, "description": "", "sweepName": None,
            "displayName": run.told.get("displayName") or run.name, "project": project,
            "config": json.dumps(run.config), "historyLineCount": len(run.rows),
        }  # fmt: skip

    def _run_files(self, given: dict[str, Any]) -> dict[str, Any]:
        run = given["run"]
        files = [{"name": name, "uploadUrl": self._place(run, name)} for name in given["files"]]
        return {"createRunFiles": {"runID": _id(run), "uploadHeaders": [], "files": files}}

    def _upload_urls(self, given: dict[str, Any]) -> dict[str, Any]:
        """As ``wandb sync`` of older clients asks."""
        run = given["run"]
        nodes = [
            {"name": name, "url": self._place(run, name), "updatedAt": None}
            for name in given["files"]
        ]
        files = {"uploadHeaders": [], "edges": [{"node": node} for node in nodes]}
        return {"model": {"bucket": {"id": _id(run), "files": files}}}

    def _artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        told = given.get("input") or given
        name = told.get("artifactCollectionName") or told["artifactCollectionNames"][0]
        key = _id(f"{name}:{told['digest']}")
        self.artifacts.setdefault(
            key, {"name": name, "type": told["artifactTypeName"], "files": [], "committed": False}
        )
        sequence = {"id": _id(name), "latestArtifact": None}
        artifact = {"id": key, "digest": told["digest"], "state": "PENDING", "aliases": [],
                    "artifactSequence": sequence}  # fmt: skip
        return {"createArtifact": {"artifact": artifact}}

    def _artifact_files(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for file in (given.get("input") or given)["artifactFiles"]:
            key, name = file["artifactID"], file["name"]
            self.artifacts[key]["files"].append(name)
            nodes.append(
                {"id": _id(name), "name": name, "displayName": name, "storagePath": name,
                 "uploadUrl": self._place(self.artifacts[key]["name"], name),
                 "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": key}}
            )  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"]
        file = {"id": _id(name), "name": name, "displayName": name, "uploadHeaders": [],
                "uploadUrl": self._place("manifest", name)}  # fmt: skip
        return {"createArtifactManifest": {"artifactManifest": {"id": _id("m"), "file": file}}}

    def _commit(self, given: dict[str, Any]) -> dict[str, Any]:
        key = given["artifactID"]
        self.artifacts[key]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": key, "digest": "d"}}}

    def _place(self, owner: str, name: str) -> str:
        return f"{self.url}/upload/{owner}/{name}"

    # the word by which a question is known; the first that is found counts
    questions: ClassVar[dict[str, Any]] = {
        "ProbeServer(Capabilities|Settings|Artifact)": _capabilities,
        "coreWeaveOrganizationId": _organization,
        "inputFields": _input_fields, "artifactType": _artifact_type, "upsertBucket": _upsert,
        "historyTail": _resume, "createRunFiles": _run_files,
        "RunUploadUrls": _upload_urls,
        "createArtifactFiles": _artifact_files, "createArtifactManifest": _manifest,
        "createArtifact": _artifact, "commitArtifact": _commit, "viewer": _viewer,
        "serverInfo": _features,
    }  # fmt: skip


def _id(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
