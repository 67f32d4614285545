"""How to install the packages that only some verbs need, which are extras of this package."""

import importlib.util
import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any
from urllib.parse import unquote, urlsplit


def installer() -> list[str]:
    """The command that installs packages for this Python: pip's where this Python has it, else uv's."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    return ["uv", "pip", "install", "--python", sys.executable]


def install(*extras: str) -> str:
    """The command that adds extras to Bluejay, from where it was installed: the name alone finds it only in a package
    index that has it.
    """
    origin, names, command = origin_of_bluejay(), f"[{','.join(extras)}]", shlex.join(installer())
    url = origin.get("url", "")
    if "dir_info" in origin:
        return f"{command} {folder_argument(origin, names)}"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"{command} 'bluejay{names}{' @ ' if url else ''}{url}'"


def compile_again() -> str:
    """What compiles the native engine of a package that was installed without it: a command, if the source is known."""
    origin = origin_of_bluejay()
    if "dir_info" not in origin:
        return "installing bluejay again from its source"
    return f"`{shlex.join(installer())} --force-reinstall --no-deps {folder_argument(origin)}`"


def origin_of_bluejay() -> dict[str, Any]:
    """Where Bluejay was installed from (PEP 610); empty if that is not known."""
    try:
        return json.loads(distribution("bluejay").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # its files are here, but it was never installed
        return {}


def folder_argument(origin: dict[str, Any], extras: str = "") -> str:
    """How pip and uv are told to install from the folder of Bluejay's source."""
    option = "-e " if origin["dir_info"].get("editable") else ""
    return f"{option}'{unquote(urlsplit(origin['url']).path)}{extras}'"
