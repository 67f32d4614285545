"""Source code in folders and repositories, with its licences."""

import re
import subprocess
from pathlib import Path

import pytest
from identify.vendor.licenses import LICENSES

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.recipe import Component
from bluejay.pile.sources.code.git import Git
from bluejay.pile.sources.code.tree import SourceFiles, Tree
from bluejay.pile.steps.read import parts_of, read_unit
from tests.pile.sources.io.test_open import forbid

TEXTS = dict(LICENSES)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree with code under three licences, a link out of it and things that are no text."""
    root = tmp_path / "project"
    files = {
        "LICENSE": TEXTS["MIT"].encode(),
        "main.py": b"print(1)\n",
        "lib/a.c": b"// SPDX-License-Identifier: GPL-2.0-only\nint a;\n",
        "lib/b.c": b"int b;\n",
        "vendor/COPYING": TEXTS["Apache-2.0"].encode(),
        "vendor/deep/c.py": b"c = 1\n",
        "large.py": b"x = 0\n" * 1000,
        "logo.png": b"\x89PNG\r\n\x1a\n\x00\x00",
        "latin.py": b"# \x01\x02\x03\n",
        "wide.txt": "a text\n".encode("utf-16"),
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (tmp_path / "secret.py").write_text("secret = 1")
    (root / "link.py").symlink_to(tmp_path / "secret.py")
    return root


def committed(root: Path, *options: str) -> str:
    """The tree as a commit, in a repository that git makes with `options`."""
    who = ["-c", "user.name=N", "-c", "user.email=e@e", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", *options], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    return (
        subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True).stdout.decode().strip()
    )


def read(source: Tree | Git) -> tuple[dict[str, Document], dict[str, str]]:
    """Documents by path, and why others are none."""
    documents, aside = {}, {}
    for unit in source.units():
        for found in source.read(unit):
            if isinstance(found, Skipped):
                aside[found.name.rpartition("/")[2].rpartition("#")[2]] = found.reason
            else:
                documents[found.meta["path"]] = found
    return documents, aside


def source(kind: str, path: str, **fields: object) -> Tree | Git:
    """A source of either kind."""
    made = Tree(kind="tree", path=path, **fields) if kind == "tree" else Git(kind="git", path=path, **fields)
    assert isinstance(made, SourceFiles)
    return made


@pytest.mark.parametrize("kind", ["tree", "git"])
def test_files_with_their_licences(kind: str, project: Path) -> None:
    commit = committed(project)
    documents, aside = read(source(kind, str(project), max_bytes=5000, exclude=("LICENSE", "*/COPYING")))
    assert {name: document.licence for name, document in documents.items()} == {
        "main.py": "MIT",
        "lib/a.c": "GPL-2.0-only",
        "lib/b.c": "MIT",
        "vendor/deep/c.py": "Apache-2.0",
        "wide.txt": "MIT",
    }
    assert documents["wide.txt"].text == "a text\n"
    assert documents["main.py"].text == "print(1)\n"
    assert aside["large.py"] == "larger than 5,000 bytes"
    assert aside["logo.png"] == "binary"
    assert aside["latin.py"].startswith("not text")
    assert len(aside) == 3
    if kind == "git":
        assert documents["main.py"].url == f"{project}@{commit}#main.py"


def test_a_folder_in_a_repository_is_under_the_licence_files_above_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = committed(project)
    documents, aside = read(Git(kind="git", path=str(project / "lib")))
    assert {name: document.licence for name, document in documents.items()} == {"a.c": "GPL-2.0-only", "b.c": "MIT"}
    assert documents["b.c"].url == f"{project}/lib@{commit}#b.c" and not aside
    documents, _ = read(Git(kind="git", path=str(project / "vendor" / "deep")))
    assert documents["c.py"].licence == "Apache-2.0"
    monkeypatch.chdir(project / "lib")
    assert {document.source for document in read(Git(kind="git", path="."))[0].values()} == {f"lib-{commit[:12]}"}


@pytest.mark.parametrize("kind", ["tree", "git"])
def test_only_the_licences_asked_for(kind: str, project: Path) -> None:
    committed(project)
    documents, aside = read(source(kind, str(project), include=("*.c",), licences=("MIT", "Apache-2.0")))
    assert list(documents) == ["lib/b.c"]
    assert aside == {"a.c": "its licence, GPL-2.0-only, is none of MIT, Apache-2.0"}


def test_units_of_a_tree_are_its_folders(project: Path) -> None:
    committed(project)
    assert Tree(kind="tree", path=str(project), include=("*.py", "*.c")).units() == [".", "lib", "vendor"]
    with pytest.raises(ValueError, match="is not a folder"):
        Tree(kind="tree", path=str(project / "main.py")).units()
    with pytest.raises(ValueError, match=r"no file in .* matches \*\.rs"):
        Tree(kind="tree", path=str(project), include=("*.rs",)).units()
    with pytest.raises(ValueError, match=rf"^exclude leaves out every file in {project} that include matches$"):
        Tree(kind="tree", path=str(project), include=("*.c",), exclude=("lib/",)).units()


def test_what_leads_from_a_worktree_to_its_repository_is_not_read(project: Path) -> None:
    (project / ".git").write_text("gitdir: /home/a/project")
    (project / "lib/.git").write_text("gitdir: /home/a/lib")
    documents, aside = read(Tree(kind="tree", path=str(project), include=("*.py", "*.git")))
    assert (set(documents), set(aside)) == ({"main.py", "large.py", "vendor/deep/c.py"}, {"latin.py"})


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_repository_at_an_address(
    algorithm: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    commit = committed(project, f"--object-format={algorithm}")
    remote = Git(kind="git", path=f"file://{project}/.git", revision="HEAD", include=("*.py",), exclude=("large.py",))
    assert remote.units() == [commit]
    (project / ".git").rename(tmp_path / "gone")
    documents, _ = read(remote)
    assert set(documents) == {"main.py", "vendor/deep/c.py"}
    assert documents["main.py"].source == f"project-{commit[:12]}"


def test_a_branch_at_an_address_is_looked_up_anew(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    first = committed(project)
    branch, commit = (Git(kind="git", path=f"file://{project}/.git", revision=name) for name in ("HEAD", first))
    assert branch.units() == commit.units() == [first]
    (project / "new.py").write_text("new = 1\n")
    second = committed(project)
    (branch.kept / "shallow.lock").touch()  # by a git that was killed
    assert (branch.units(), commit.units()) == ([second], [first])
    assert "new.py" in read(branch)[0]
    assert list(branch.read(first))  # by a build that began before
    capsys.readouterr()
    (project / ".git").rename(tmp_path / "gone")
    assert (branch.units(), commit.units()) == ([second], [first])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is read as it was fetched before: git cannot read" in said


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_build_within_a_git_hook_leaves_the_repository_of_the_hook_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "other.py").write_text("other = 1\n")
    committed(other)
    commit, config = committed(project), (other / ".git" / "config").read_bytes()
    for name, within in (("GIT_DIR", ""), ("GIT_INDEX_FILE", "index"), ("GIT_OBJECT_DIRECTORY", "objects")):
        monkeypatch.setenv(name, str(other / ".git" / within))
    source = Git(kind="git", path=f"{prefix}{project}", include=("*.py",))
    assert source.units() == [commit]
    assert "main.py" in read(source)[0]
    assert (other / ".git" / "config").read_bytes() == config


@pytest.mark.parametrize(("exclude", "is_left_out"), [((), False), (("lib/*",), True), (("*.c",), False)])
def test_a_folder_that_cannot_be_read_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, exclude: tuple[str, ...], is_left_out: bool
) -> None:
    forbid(monkeypatch, project / "lib")
    tree = Tree(kind="tree", path=str(project), exclude=exclude)
    if is_left_out:
        assert tree.units() == [".", "vendor"]
        return
    with pytest.raises(ValueError, match=f"{project}/lib cannot be read: Permission denied"):
        tree.units()


@pytest.mark.parametrize("kind", ["tree", "git"])
def test_patterns_that_match_no_file_are_said(kind: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    committed(project)
    patterns = {"include": ("*.py", "*.rs"), "exclude": ("deep", "vendor/")}
    (part, *_), _ = parts_of(Component("A", source=(source(kind, str(project), **patterns),)))
    list(part.source.read(part.units[0]))
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{pattern} matches no file in {project}" for pattern in ("*.rs in include", "deep in exclude")]


def test_an_older_revision_and_none(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("GIT_SSH_COMMAND", "echo 'Permission denied (publickey).' >&2; false")
    commit = committed(project)
    (project / "main.py").write_text("print(2)\n")
    committed(project)
    documents, _ = read(Git(kind="git", path=str(project), revision=commit, include=("main.py",)))
    assert documents["main.py"].text == "print(1)\n"
    nowhere = f"{project.parent}/nowhere"
    for path, revision, says in (
        (str(project), "no-such", f"{project} has no revision no-such"),
        (str(project), "--help", f"{project} has no revision --help"),
        (nowhere, "HEAD", f"git cannot read {nowhere}: cannot change to '{nowhere}'"),
        (
            f"file://{nowhere}",
            "HEAD",
            f"git cannot read file://{nowhere}: '{nowhere}' does not appear to be a git repo",
        ),
        ("a@127.0.0.1:x", "HEAD", "git cannot read a@127.0.0.1:x: Permission denied (publickey)."),
        (f"file://{project}", "no-such", f"git cannot read file://{project}: couldn't find remote ref no-such"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
            Git(kind="git", path=path, revision=revision).units()


@pytest.mark.parametrize("kind", ["tree", "git"])
def test_a_choice_of_licences_holds_one_that_is_asked_for(kind: str, tmp_path: Path) -> None:
    files = {
        "LICENSE-MIT": TEXTS["MIT"],
        "LICENSE-APACHE": TEXTS["Apache-2.0"],
        "both.rs": "fn a() {}",
        "either.rs": "// SPDX-License-Identifier: MIT OR GPL-2.0-only",
        "other.rs": "// SPDX-License-Identifier: MIT AND GPL-2.0-only",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    committed(tmp_path)
    documents, aside = read(source(kind, str(tmp_path), include=("*.rs",), licences=("MIT", "apache-2.0")))
    assert (list(documents), list(aside)) == (["both.rs", "either.rs"], ["other.rs"])


def test_a_partial_clone_runs_nothing_that_its_configuration_says(project: Path, tmp_path: Path) -> None:
    committed(project)
    clone, ran = tmp_path / "clone", tmp_path / "ran"
    for command in (
        ["-C", str(project), "config", "uploadpack.allowFilter", "true"],
        ["clone", "-q", "--no-checkout", "--filter=blob:none", project.as_uri(), str(clone)],
        ["-C", str(clone), "config", "remote.origin.uploadpack", f"touch {ran}; git-upload-pack"],
    ):
        subprocess.run(["git", *command], check=True, capture_output=True)
    with pytest.raises(ValueError, match="fetches what a partial clone lacks"):
        read(Git(kind="git", path=str(clone)))
    assert not ran.exists()


def test_what_a_repository_has_elsewhere_or_not_is_said(project: Path) -> None:
    commit = committed(project)
    entry = f"160000,{commit},lib/module"
    subprocess.run(["git", "update-index", "--add", "--cacheinfo", entry], cwd=project, check=True)
    subprocess.run(["git", "-c", "user.name=N", "-c", "user.email=e@e", "commit", "-qm", "x"], cwd=project, check=True)
    _, aside = read(Git(kind="git", path=str(project), include=("*.f90",)))
    assert [reason.partition(":")[0] for reason in aside.values()] == ["a submodule", "no file in it matches *.f90"]
    assert "module" not in read(Git(kind="git", path=str(project), exclude=("lib/module",)))[1]


@pytest.mark.parametrize("kind", ["tree", "git"])
def test_a_limit_that_leaves_nothing_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="max_bytes is 0; it must be at least 1"):
        source(kind, "x", max_bytes=0)


def test_a_repository_that_names_files_without_end_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    committed(tmp_path)

    def made(kind: str, given: str, *words: str) -> str:
        command = ["git", "-c", "user.name=N", "-c", "user.email=e@e", kind, *words]
        return subprocess.run(command, cwd=tmp_path, input=given, check=True, capture_output=True, text=True).stdout

    tree = made("rev-parse", "", "HEAD^{tree}").strip()
    for _ in range(4):  # each level has the one below it ten times
        tree = made("mktree", "".join(f"040000 tree {tree}\t{number}\n" for number in range(10))).strip()
    commit = made("commit-tree", "", "-m", "all", tree).strip()
    repository = Git(kind="git", path=str(tmp_path), revision=commit)
    monkeypatch.setattr("bluejay.pile.sources.code.git.MAX_OUTPUT_BYTES", 1000)
    (found,) = read_unit(repository, commit)
    assert isinstance(found, Skipped) and found.reason == "git ls-tree gives more than 0 MB, too much to read"


@pytest.mark.parametrize("kind", ["tree", "git"])
def test_no_more_of_a_licence_file_is_read_than_a_licence_has(
    kind: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(project)
    monkeypatch.setattr(f"bluejay.pile.sources.code.{kind}.MAX_LICENCE_BYTES", 2000)
    documents, _ = read(source(kind, str(project)))
    assert documents["main.py"].licence == "MIT" and documents["vendor/deep/c.py"].licence == "unknown"
