"""How to install the packages that only some verbs need, which are extras of this package."""

import importlib.util
import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit


def installer() -> list[str]:
    """The command that installs packages for this Python: pip's where this Python has it, else uv's."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    return ["uv", "pip", "install", "--python", sys.executable]


def install(*extras: str) -> str:
    """The command that adds extras to Bluejay, from where it was installed (PEP 610): the name alone finds it only in a
    package index that has it.
    """
    try:
        origin = json.loads(distribution("bluejay").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # its files are here, but it was never installed
        origin = {}
    url, names, command = origin.get("url", ""), f"[{','.join(extras)}]", shlex.join(installer())
    if "dir_info" in origin:
        option = "-e " if origin["dir_info"].get("editable") else ""
        return f"{command} {option}'{unquote(urlsplit(url).path)}{names}'"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"{command} 'bluejay{names}{' @ ' if url else ''}{url}'"
