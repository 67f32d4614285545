"""What is deployed starts the command with options that it has, from files that are there."""

import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from bluejay.cli import parser
from bluejay.serve.settings import ServeSettings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text().splitlines()


def instruction(name: str) -> list[str]:
    """The arguments of each instruction of a name."""
    return [line.partition(" ")[2] for line in DOCKERFILE if line.startswith(f"{name} ")]


def test_the_container_runs_as_nobody_special_and_its_command_is_one():
    assert len(instruction("FROM")) == 2 and instruction("USER") == ["bluejay"]
    last = DOCKERFILE.index("USER bluejay")
    assert not [line for line in DOCKERFILE[last:] if line.startswith("RUN")]
    (command,) = instruction("CMD")
    options = parser().parse_args(yaml.safe_load(command))
    assert options.host == "0.0.0.0" and str(ServeSettings().port) in instruction("EXPOSE")


def sent() -> list[str]:
    """What the builder gets."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def test_the_builder_gets_all_that_the_installation_reads():
    assert {"src", "native", "recipes", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(sent())
    assert all((ROOT / name).exists() for name in sent())


def test_the_compose_file_builds_the_container_and_mounts_what_it_serves():
    (service,) = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"].values()
    assert (ROOT / "deploy" / service["build"] / "Dockerfile").is_file()
    assert service["volumes"][0].split(":")[-2] in instruction("CMD")[0]
    default = re.match(r"\$\{MODEL:-(.*?)\}", service["volumes"][0])
    assert default and (ROOT / "deploy" / default[1] / "config.json").is_file()
    settings = ServeSettings()
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.unready + settings.drain + 10
    assert service["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]


@pytest.mark.parametrize(("files", "made"), [([], True), (["python"], True), (["python", "pip"], False)])
def test_an_environment_that_was_not_finished_is_made_again(tmp_path, files, made):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", *(f".venv/bin/{name}" for name in files)):
        (tmp_path / name).write_text('#!/bin/sh\necho "$@" >> calls\n')
        (tmp_path / name).chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    command = ["make", "--file", ROOT / "Makefile", ".venv/run", "PYTHON=./python", "UV=", "INSTALL=true"]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert ("-m venv .venv" in (tmp_path / "calls").read_text().splitlines()) == made


@pytest.mark.parametrize("python", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\n"])
def test_an_environment_whose_python_is_gone_or_another_is_made_again(tmp_path, python):
    """After an update of the system, which is no change of the checkout: only one that still works stays."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "run").write_text(f"{tmp_path.resolve()}\n")
    files = {"python": '#!/bin/sh\necho "$@" >> calls\n', ".venv/bin/pip": "", ".venv/bin/python": python}
    for name, text in files.items():
        if text is None:
            (tmp_path / name).symlink_to("/nowhere/python3.11")
        else:
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
    make(tmp_path, ".venv/run", "PYTHON=./python", "INSTALL=true")
    made = (tmp_path / "calls").is_file() and "-m venv .venv" in (tmp_path / "calls").read_text().splitlines()
    assert made == (python != "#!/bin/sh\n") == (not os.path.lexists(tmp_path / ".venv" / "bin" / "python"))


def make(folder: Path, *arguments: str) -> str:
    """What `make` prints in a folder, with an installer that only says that it is called."""
    command = ["make", "--file", ROOT / "Makefile", "--no-print-directory", "UV=", "INSTALL=echo installs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_checkout_is_installed_once_and_again_where_it_was_moved_to(tmp_path):
    before, after = tmp_path / "here", tmp_path / "else where"
    (before / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", ".venv/run", ".venv/bin/pip", ".venv/bin/python"):
        (before / name).touch()
    (before / ".venv" / "bin" / "pip").chmod(0o755)
    (before / ".venv" / "bin" / "python").write_text('#!/bin/sh\necho "python $@"\n')
    (before / ".venv" / "bin" / "python").chmod(0o755)
    assert "\ninstalls --editable ." in make(before, ".venv/dev")
    assert "installs" not in make(before, ".venv/dev")
    before.rename(after)
    moved = make(after, ".venv/dev")
    assert "\ninstalls --editable .\n" in moved and "\ninstalls --quiet --editable .[corpus,dev]\n" in moved
    assert "python -m venv --without-pip .venv" in moved.splitlines()  # whose scripts name the folder
    assert "installs" not in make(after, ".venv/dev")


def test_what_is_installed_goes_into_the_checkout_whatever_pip_is_told_elsewhere(tmp_path, monkeypatch):
    """And an engine that was not compiled this time, from the sources that are there now, does not stay."""
    for name in ("pyproject.toml", "constraints.txt", "python", ".venv/bin/pip", "src/bluejay/_native.cpython-311.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(0o755)
    os.utime(tmp_path / "src/bluejay/_native.cpython-311.so", (0, 0))
    theirs = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_TARGET")
    for name in theirs:
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("PIP_USER", "1")
    installs = "touch -t 209901010000 src/bluejay/_native.cpython-312.so; env; true"
    told = make(tmp_path, ".venv/run", "PYTHON=./python", f"INSTALL={installs}").splitlines()
    assert "PIP_USER=0" in told and not [line for line in told if line.startswith(theirs)]
    assert [path.name for path in (tmp_path / "src/bluejay").iterdir()] == ["_native.cpython-312.so"]


def test_without_a_python_make_says_so_and_stops(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        make(tmp_path, ".venv/run", "PYTHON=", "--old-file=pyproject.toml", "--old-file=constraints.txt")
    assert stopped.value.stdout == "error: no Python 3.11 or newer here; install one, or set PYTHON=\n"


@pytest.mark.parametrize(("target", "kept"), [("clean", {"data", "runs", "src"}), ("clean-all", {"src"})])
def test_what_was_installed_is_removed_without_what_was_made(tmp_path, target, kept):
    for name in (".venv", ".venv-peers", "build", "data", "runs", "src/bluejay"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "src" / "bluejay" / "_native.abi3.so").touch()
    make(tmp_path, target)
    assert {path.name for path in tmp_path.iterdir()} == kept and not list((tmp_path / "src" / "bluejay").iterdir())


def test_make_help_tells_of_every_target():
    (targets,) = re.findall(r"^\.PHONY: (.*) FORCE$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = [line.split(None, 1) for line in make(ROOT, "help").splitlines()]
    assert [name for name, _ in told] == targets.split() and all(text for _, text in told)


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    text = (ROOT / "deploy" / "bluejay.service").read_text()
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program, *arguments = start.removeprefix("ExecStart=").split()
    options = parser().parse_args(arguments)
    assert program.endswith("/bin/bluejay") and options.host == "127.0.0.1"
    # On this machine nothing is installed in /opt.
    (tmp_path / "bluejay.service").write_text(text.replace(program, "/bin/true"))
    run = subprocess.run(["systemd-analyze", "verify", tmp_path / "bluejay.service"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "SuccessExitStatus=143" in text


MANIFESTS = [
    document
    for file in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_kubernetes_takes_the_manifests(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_manifests_serve_with_options_probes_and_names_that_are_there():
    named = {(one["kind"], one["metadata"]["name"]): one for one in MANIFESTS}
    pod = named["Deployment", "bluejay"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = parser().parse_args(container["args"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(model.startswith("/models/") for model in options.models) and {"/models", "/tmp"} <= mounts
    assert pod["spec"]["terminationGracePeriodSeconds"] > options.unready + options.drain
    # Routers learn of a server that shuts down before it stops accepting.
    ready = container["readinessProbe"]
    assert options.unready > ready["periodSeconds"] * ready["failureThreshold"]
    assert ready["httpGet"]["path"] == "/readyz" and container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    (metric,) = named["HorizontalPodAutoscaler", "bluejay"]["spec"]["metrics"]
    page = (ROOT / "docs" / "serving.md").read_text()
    assert f"`{metric['pods']['metric']['name'].removeprefix('bluejay_')}` |" in page
    labels = pod["metadata"]["labels"]
    for kind, name in (("Service", "bluejay-servers"), ("PodDisruptionBudget", "bluejay")):
        chosen = named[kind, name]["spec"]["selector"]
        assert chosen.get("matchLabels", chosen) == labels
    configuration = named["ConfigMap", "bluejay-router"]["data"]["default.conf"]
    assert re.search(r"server (\S+):8000", configuration)[1] == "bluejay-servers.default.svc.cluster.local"


def root_of(image: str, root: Path) -> Path:
    """The smallest system of the distribution that an image is made of, which finds what this machine finds."""
    suite = image.partition(":")[2].removesuffix("-slim")
    subprocess.run(["debootstrap", "--variant=minbase", suite, root], check=True, stdout=subprocess.DEVNULL)
    for name in ("etc/resolv.conf", "etc/hosts", "etc/apt/sources.list.d/debian.sources", "etc/apt/apt.conf.d"):
        if (Path("/") / name).exists():
            subprocess.run(["cp", "-rL", f"/{name}", (root / name).parent], check=True)
    for folder in filter(os.path.isdir, os.environ.get("PIP_FIND_LINKS", "").split()):
        shutil.copytree(folder, root / folder.strip("/"))
    authorities = ssl.get_default_verify_paths().cafile
    if authorities is not None:
        shutil.copyfile(authorities, root / "authorities.crt")
    return root


@pytest.mark.slow  # downloads a system, a compiler and torch, which takes some gigabytes where the index's carries CUDA
def test_the_lines_of_the_dockerfile_make_a_container_that_starts(tmp_path):
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip("debootstrap is not installed, or this user may not use it")
    images = instruction("FROM")
    (image,) = {image.split()[0] for image in images}
    base = root_of(image, tmp_path / "base")
    outside = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "_proxy" in name.lower()}
    if (base / "authorities.crt").exists():
        outside |= {"PIP_CERT": "/authorities.crt", "SSL_CERT_FILE": "/authorities.crt"}
    root, user, stages, environment = base, "root", {}, {}

    def run(*command: str) -> str:
        inside = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc"]  # a container has a /proc
        inside += ["chroot", f"--userspec={user}", str(root), *command]
        done = subprocess.run(inside, env=outside | environment, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    for line in DOCKERFILE:
        name, _, rest = line.partition(" ")
        if name == "FROM":
            root = stages[rest.rpartition(" ")[2]] = tmp_path / f"stage{len(stages)}"
            subprocess.run(["cp", "-a", base, root], check=True)
            user, environment = "root", {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        elif name == "COPY" and rest.startswith("--from="):
            stage, source, target = rest.removeprefix("--from=").split()
            shutil.copytree(stages[stage] / source.strip("/"), root / target.strip("/"), symlinks=True)
        elif name == "COPY":
            (root / "src").mkdir()
            files = subprocess.check_output(["git", "ls-files", "-z", "--", *sent()], cwd=ROOT, text=True).split("\0")
            subprocess.run(["cp", "--parents", "-t", root / "src", *filter(None, files)], cwd=ROOT, check=True)
        elif name == "RUN":
            run("sh", "-c", rest)
        elif name == "ENV":
            for word in rest.split():
                key, _, value = word.partition("=")
                environment[key] = value.replace("$PATH", environment["PATH"])
        elif name == "USER":
            user = rest
    (entry,) = yaml.safe_load(instruction("ENTRYPOINT")[0])
    assert run(entry, "--version").startswith("bluejay ")
    assert (
        run("python3", "-c", "from bluejay.native import native; print(native.__name__)").strip() == "bluejay._native"
    )
    assert not (root / "usr/bin/g++").exists() and run("id", "--user").strip() == "1000"
