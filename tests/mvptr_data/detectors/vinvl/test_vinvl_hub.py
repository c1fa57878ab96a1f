"""Fetching the released files: from a hub on this machine's own loopback, from the cache, and not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mvptr_data.detectors.vinvl.hub import LABEL_MAP_FILE, REPOSITORY, REVISION

ROOT = Path(__file__).resolve().parents[4]
CONTENT = b'{"label_to_idx": {}}'

#: Prints where the file is, or the error as a command would show it. A process of its own: the hub reads its settings once.
FETCH = f"""
from mvptr_data.detectors.vinvl.hub import fetch
from mvptr_data.errors import MvptrError
try:
    print(fetch({LABEL_MAP_FILE!r}, "label_map"))
except MvptrError as error:
    print(type(error).__name__, error)
"""


class Hub(BaseHTTPRequestHandler):
    """The one endpoint that a download of one file uses."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = self.path == f"/{REPOSITORY}/resolve/{REVISION}/{LABEL_MAP_FILE}"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{sha256(CONTENT).hexdigest()}"')
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if body and found:
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A running hub's address and the requests it was sent."""
    handler = type("OneHub", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(code: str = FETCH, **environment: str) -> str:
    """What a process with these settings prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {**inherited, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", **environment}
    settings |= {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_a_file_is_fetched_once_at_the_pinned_commit(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
    path = Path(fetched(**settings))
    assert path.read_bytes() == CONTENT
    assert REVISION in path.parts and path.name == LABEL_MAP_FILE
    gets = [line for line in asked if line.startswith("GET") and "/resolve/" in line]
    assert gets == [f"GET /{REPOSITORY}/resolve/{REVISION}/{LABEL_MAP_FILE}"]
    before = len(asked)
    assert fetched(**settings) == str(path)
    assert fetched(**settings, HF_HUB_OFFLINE="1") == str(path)
    assert len(asked) == before  # a commit never changes, so the cache needs no question


@pytest.mark.parametrize(
    "settings",
    [
        {"HF_HUB_OFFLINE": "1"},
        pytest.param(
            {"HF_ENDPOINT": "http://127.0.0.1:9"}, marks=pytest.mark.slow
        ),  # the hub's client tries again a while
    ],
)
def test_without_a_network_the_option_is_named(tmp_path: Path, settings: dict[str, str]) -> None:
    message = fetched(HF_HOME=str(tmp_path / "cache"), **settings)
    assert message.startswith(f"InputError cannot fetch {LABEL_MAP_FILE} of {REPOSITORY}")
    assert "give the option label_map a path" in message and "\n" not in message


def test_a_hub_that_refuses(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    code = FETCH.replace(LABEL_MAP_FILE, "absent.json")
    message = fetched(code, HF_ENDPOINT=hub[0], HF_HOME=str(tmp_path / "cache"))
    assert message.startswith("InputError cannot fetch absent.json") and "\n" not in message


def test_without_the_package(tmp_path: Path) -> None:
    code = f"import sys; sys.modules['huggingface_hub'] = None{FETCH}"
    message = fetched(code)
    assert message.startswith("MissingDependencyError") and "mvptr-data[extract]" in message
