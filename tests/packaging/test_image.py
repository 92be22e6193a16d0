"""The image of `make deploy-tensorflow`, as far as it can be checked without Docker."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from samcli.yamlhelper import yaml_parse

from driving import ROOT
from stepensemble.cli.stacks import Stack

TOOLS = Path(sys.executable).parent
REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/stepensemble"
IMAGE = "a" * 64
LAMBDA = ["--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_28"]


def run(*command: str, folder: Path, **environment: str) -> str:
    """Run a command of the environment's tools; return what it printed."""
    path = os.pathsep.join([str(TOOLS), str(ROOT / ".uv" / "bin"), os.environ["PATH"]])
    variables = os.environ | {"PATH": path, "SAM_CLI_TELEMETRY": "0"} | environment
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------- its packages


def uv_commands() -> dict[str, list[str]]:
    """The Dockerfile's commands of uv, by their names."""
    text = (ROOT / "functions" / "score" / "Dockerfile").read_text().replace("\\\n", " ")
    found = (shlex.split(line)[1:] for line in re.findall(r"^RUN (uv .+?)(?:&&.*)?$", text, re.MULTILINE))
    return {"install" if command[0] == "pip" else command[0]: command for command in found}


def test_its_packages_are_lambdas_wheels_of_the_lock_files_versions_and_hashes(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    commands = uv_commands()
    run("uv", *commands["export"], folder=tmp_path)
    run("uv", *commands["install"], "--dry-run", *LAMBDA, folder=tmp_path)
    requirements = (tmp_path / "requirements.txt").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", requirements, re.MULTILINE))
    assert {"aws-lambda-powertools", "msgspec", "numpy", "obstore", "tensorflow-cpu"} <= names
    assert not names & {"ai-edge-litert", "boto3", "libclang", "tensorflow", "typer"}
    locked = {(each["name"], each["version"]) for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert set(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", requirements, re.MULTILINE)) <= locked


# ---------------------------------------------------------------------------------------------------- its slots


@dataclass(frozen=True)
class Daemon:
    """Responds to SAM CLI as Docker does when all succeeds, and notes the requests.

    Attributes:
        builds: the files of each build's context.
        pushes: each image's repository and tag.
    """

    endpoint: str
    builds: list[list[str]] = field(default_factory=list)
    pushes: list[str] = field(default_factory=list)

    def respond(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[bytes, ...]:
        if path == "/build":
            with tarfile.open(fileobj=io.BytesIO(body)) as context:
                self.builds.append([entry.name for entry in context if entry.isfile()])
            return (encode({"stream": f"Successfully built {IMAGE[:12]}"}),)
        if path.endswith("/push"):
            self.pushes.append(f"{path.removeprefix('/images/').removesuffix('/push')}:{query['tag'][0]}")
            return encode({"status": "pushed"}), encode({"aux": {"Digest": f"sha256:{IMAGE}"}})
        if path == "/version":
            return (encode({"ApiVersion": "1.45", "Version": "28", "Os": "linux", "Arch": "amd64"}),)
        return (encode({"Id": f"sha256:{IMAGE}", "RepoTags": [], "Config": {}}),)


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            url = urlsplit(self.path)
            chunks = made.respond(re.sub(r"^/v[\d.]+", "", url.path), parse_qs(url.query), self.read())
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (*chunks, b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()

        do_GET = do_POST  # noqa: N815 (http.server's name)

        def read(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Daemon(f"tcp://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def test_it_is_built_once_with_its_context_and_every_slot_gets_it(project: Path, stack: Stack, daemon: Daemon) -> None:
    docker = {"DOCKER_HOST": daemon.endpoint}
    run("sam", "build", "--template-file", "template-tensorflow.yaml", "--build-dir", "image", folder=project, **docker)
    (context,) = daemon.builds
    assert {"functions/score/app.py", "src/stepensemble/handlers/prediction/score.py", "uv.lock"} <= set(context)
    assert not [path for path in context if path.startswith(("models/", ".venv", "src/stepensemble/cli/"))]

    where = ["--template-file", "image/template.yaml", "--config-file", str(project / "samconfig.toml")]
    what = ["--image-repository", REPOSITORY, "--s3-bucket", "none", "--output-template-file", "image/packaged.yaml"]
    account = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": stack.session.region_name,
        "AWS_ENDPOINT_URL": str(stack.endpoint),
    }
    run("sam", "package", *where, *what, folder=project, **docker, **account)
    (pushed,) = set(daemon.pushes)
    assert pushed.startswith(f"{REPOSITORY}:")
    packaged = yaml_parse((project / "image" / "packaged.yaml").read_text())
    (images,) = (table for name, table in packaged["Mappings"].items() if "ImageUri" in name)
    assert images == {slot: {"ImageUri": pushed} for slot in ("t1", "t2")}
