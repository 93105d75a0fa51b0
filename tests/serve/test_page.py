"""The web page: its files, its headers, and its modules in node."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import rwkv_engine
from rwkv_engine.serve.app import make_app
from rwkv_engine.serve.server import Server, Settings
from rwkv_engine.serve.web import page

FOLDER = Path(rwkv_engine.__file__).parent / "serve" / "page"
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@pytest.fixture
def browser():
    """A client of a server with a key, that does not know the key. No model is loaded."""
    server = Server(
        Settings(sources={"small": None}, keys=("a-long-key",)), lambda source: None, lambda source: 1
    )
    return TestClient(make_app(server), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_the_page_is_sent_without_a_key(browser, path):
    answer = browser.get("/" if path.name == "index.html" else f"/page/{path.name}")
    assert answer.status_code == 200 and answer.content == path.read_bytes()
    assert answer.headers["content-type"] == f"{KINDS[path.suffix]}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(
        part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy.pop("img-src") == "'self' data:"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert {name for name, value in policy.items() if value == "'self'"} == {
        "script-src",
        "style-src",
        "connect-src",
    }
    assert {name for name, value in policy.items() if value == "'none'"} == {
        *("default-src", "base-uri", "form-action", "frame-ancestors")
    }


def test_what_the_page_names_is_there():
    html = (FOLDER / "index.html").read_text("utf-8")
    named = set(re.findall(r'(?:src|href)="(?!data:|#)(.*?)"', html))
    assert named == {"page/page.css", "page/page.js"}
    for script in SCRIPTS:
        named |= {f"page/{name}" for name in re.findall(r'from "\./(.*?)"', script.read_text("utf-8"))}
    assert {f"/{name}" for name in named} | {"/"} == set(page())
    ids = set(re.findall(r'\bid="(.*?)"', html))
    assert set(re.findall(r'\$\("(.*?)"\)', (FOLDER / "page.js").read_text("utf-8"))) <= ids


def test_the_api_still_needs_the_key(browser):
    assert browser.get("/v1/models").status_code == 401
    assert browser.post("/v1/chat/completions", json={}).status_code == 401
    assert browser.get("/page/").status_code == browser.get("/page/../app.py").status_code == 401
    assert browser.get("/v1/models", headers={"authorization": "Bearer a-long-key"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/none.js", "/page/index.html", "/page/", "/page", "/page/%2e%2e%2fapp.py", "/x"]
)
def test_no_other_file_is_sent(browser, path):
    answer = browser.get(path, headers={"authorization": "Bearer a-long-key"})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_other_sites_and_other_methods_are_refused(browser):
    assert browser.get("/", headers={"host": "evil.example"}).status_code == 403
    assert browser.post("/").status_code == 405


def test_head_has_the_headers_and_no_body(address):
    import httpx

    head, get = httpx.head(f"{address}/"), httpx.get(f"{address}/")
    assert head.status_code == 200 and not head.content and get.content
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_page_makes_no_html_of_text_and_knows_no_outside_address(path):
    text = path.read_text("utf-8")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
    ):
        assert word not in text
    for word in ("http://", "https://", "<style", " style=", "<script>", "@import", "url("):
        assert word not in text
    assert not re.search(r"\son\w+=\"", text)
    assert len(text.splitlines()) <= 350


def test_the_modules_of_the_page_work_in_node(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    major = int(
        subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip("v\n").split(".")[0]
    )
    if major < 20:
        pytest.skip(f"node {major} is too old: the tests need 20")
    for path in (*SCRIPTS, Path(__file__).with_name("page_tests.mjs")):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(
        [node, "--test", "page_tests.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
