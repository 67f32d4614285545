"""The recipes of docs/serving.md: the public server behind nginx and Caddy, configured with the text of that page."""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from bluejay.gpt.formats.locate import title
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.serve.conftest import engine_thread_of
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "serving.md"
ROUTER = ROOT / "deploy" / "kubernetes" / "router.yaml"


@pytest.fixture(scope="module")
def public(running, model):
    limits = PublicSettings(requests_per_minute=6)
    with running(model, ServeSettings(port=0, public=limits)) as server:
        yield server


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(request, public, tmp_path_factory):
    """A proxy with a certificate of its own: a client that trusts it, and comes from elsewhere."""
    name = request.param
    if shutil.which(name) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    folder = tmp_path_factory.mktemp(name)
    pem, key = folder / "bluejay.pem", folder / "bluejay.key"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bluejay"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)]
    subprocess.run([*made, *names], check=True, capture_output=True)
    port = free_port()
    command = (nginx if name == "nginx" else caddy)(folder, port, public.url, pem, key)
    with run(command, folder, port):
        # Another address of this machine for each: 127.0.0.1 is the proxy's own.
        trust = ssl.create_default_context(cafile=str(pem))
        transport = httpx.HTTPTransport(verify=trust, local_address="127.0.0.2" if name == "nginx" else "127.0.0.3")
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", transport=transport) as client:
            yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def recipe(language: str, changes: dict[str, str]) -> str:
    """A block of the guide, with this test's addresses and files in the place of the reader's."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", RECIPES.read_text(), re.DOTALL)
    for there, here in changes.items():
        assert there in block
        block = block.replace(there, here)
    return block


def nginx(folder: Path, port: int, url: str, pem: Path, key: Path) -> list[str]:
    """nginx's command."""
    block = recipe(
        "nginx",
        {
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/ssl/bluejay.pem": str(pem),
            "/etc/ssl/bluejay.key": str(key),
            "http://127.0.0.1:8000": url,
        },
    )
    return nginx_with(folder, f"limit_conn_zone $binary_remote_addr zone=addresses:10m;\n{block}")


def nginx_with(folder: Path, http: str) -> list[str]:
    """The command of an nginx that runs in a folder, with lines of the block `http`."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;" if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; {user} pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\nhttp {{\n{folders}"
        f"access_log off;\n{http}}}\n"
    )
    return ["nginx", "-c", str(config), "-e", str(folder / "error.log")]


def caddy(folder: Path, port: int, url: str, pem: Path, key: Path) -> list[str]:
    """Caddy's command; the certificate is ours, as nobody outside can vouch for 127.0.0.1."""
    site = f"https://127.0.0.1:{port} {{\n    tls {pem} {key}"
    block = recipe("caddyfile", {"bluejay.example.org {": site, "127.0.0.1:8000": url.removeprefix("http://")})
    config = folder / "Caddyfile"
    config.write_text(f"{{\n    admin off\n    auto_https disable_redirects\n}}\n{block}")
    return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]


@contextlib.contextmanager
def run(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """A running proxy."""
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=os.environ | homes, stdout=log, stderr=log) as process,
    ):
        try:

            def listens() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                with socket.socket() as probe:
                    return not probe.connect_ex(("127.0.0.1", port))

            assert eventually(listens)
            yield
        finally:
            process.terminate()


def test_the_page_and_its_policy_pass_the_proxy(proxy):
    page = proxy.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert proxy.get("/metrics").status_code == 200  # 127.0.0.2 is private, too


def test_tokens_are_not_buffered_and_a_disconnected_client_frees_its_slots(proxy, public):
    body = {"prompt": "the", "max_tokens": 1000, "n": 40, "stream": True}
    with proxy.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        assert engine_thread_of(public).engine.running  # it came long before the answer's end
    assert eventually(lambda: not engine_thread_of(public).owners and engine_thread_of(public).engine.idle)


def test_a_client_is_identified_by_the_address_that_the_proxy_sees(proxy):
    claims = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(10)]
    statuses = [proxy.post("/v1/completions", json={"max_tokens": 1}, headers=claim).status_code for claim in claims]
    assert statuses.count(200) >= 5 and statuses[-1] == 429


def test_large_bodies_are_rejected_by_the_proxy(proxy):
    # Caddy sends a body on as it comes; where it meets the limit before the server's answer it says 502.
    assert proxy.post("/v1/completions", content=b"x" * 2_000_000).status_code in (413, 502)


def test_the_router_resolves_the_servers_by_their_full_name():
    (manifest, *_) = yaml.safe_load_all(ROUTER.read_text())
    text = manifest["data"]["default.conf"]
    (upstream,) = re.findall(r"^upstream \w+ \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    # nginx looks for the resolver of an upstream's servers in that block or in `http`, never in `server`.
    assert re.search(r"^ *resolver ", upstream, re.MULTILINE)
    assert re.search(r"^ *server [\w-]+\.[\w-]+\.svc\.cluster\.local:8000 resolve ", upstream, re.MULTILINE)


def test_what_is_deployed_calls_the_model_by_its_name():
    deploy = ROOT / "deploy"
    commands = [json.loads(re.search(r"^CMD (.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])]
    pods = yaml.safe_load_all((deploy / "kubernetes" / "bluejay.yaml").read_text())
    commands += [next(pods)["spec"]["template"]["spec"]["containers"][0]["args"]]
    (service,) = yaml.safe_load((deploy / "compose.yaml").read_text())["services"].values()
    mounted = service["volumes"][0].split(":")[-2]
    paths = [mounted, *(command[command.index("serve") + 1] for command in commands)]
    assert {title(ROOT, Path(path)) for path in paths} == {"bluejay-nano"}


def test_the_service_reads_its_model_where_it_cannot_write():
    text = (ROOT / "deploy" / "bluejay.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")
    assert unit["ProtectSystem"] == "strict" and unit["ProtectHome"] == "yes"
    writable = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log"}
    folders = [f"{above}/{unit[name]}/" for name, above in writable.items() if name in unit]
    assert folders and "ReadWritePaths" not in unit
    served = re.search(r" serve (\S+)", unit["ExecStart"])[1]
    # A service sees no home directory, and the user of this one has the group that may read the keys.
    readable = re.search(r"--group=(\w+) --mode=640 keys.txt (\S+)", text)
    assert readable and readable[1] == unit["User"]
    for path in (served, readable[2]):
        assert not path.startswith(("/home/", "/root/", "/tmp/", *folders))


@pytest.mark.slow
def test_the_router_sends_equal_prefixes_to_one_server_and_goes_on_without_one(running, model, tmp_path):
    if shutil.which("nginx") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx is not installed")
    (manifest, *_) = yaml.safe_load_all(ROUTER.read_text())
    port, gone = free_port(), free_port()
    with running(model, ServeSettings(port=0)) as one, running(model, ServeSettings(port=0)) as other:
        addresses = [server.url.removeprefix("http://") for server in (one, other)]
        # Debian's nginx has no `resolve`; the servers stand one by one, with one that nobody answers at.
        servers = "\n".join(f"server {address};" for address in (*addresses, f"127.0.0.1:{gone}"))
        text = re.sub(r"server bluejay-servers\..*", servers, manifest["data"]["default.conf"])
        text = re.sub(r"resolver .*", "", text).replace("listen 8080", f"listen 127.0.0.1:{port}")

        def answered() -> list[str | None]:
            metrics = (httpx.get(f"{server.url}/metrics").text for server in (one, other))
            found = (re.search(r'requests_total\{path="/v1/completions",status="200"\} (.*)', text) for text in metrics)
            return [match and match[1] for match in found]

        address = f"http://127.0.0.1:{port}"
        with run(nginx_with(tmp_path, text), tmp_path, port), httpx.Client(base_url=address) as client:
            served = {}
            for name in [f"document {number}" for number in range(12)] * 2:
                before = answered()
                body = {"prompt": f"the cat of {name}", "max_tokens": 1}
                assert client.post("/v1/completions", json=body, headers={"X-Prefix": name}).status_code == 200
                (chosen,) = [i for i, (now, then) in enumerate(zip(answered(), before, strict=True)) if now != then]
                assert served.setdefault(name, chosen) == chosen
            assert set(served.values()) == {0, 1}
