"""How to install the packages that only some verbs need, which are extras of this package."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit


def install(*extras: str) -> str:
    """The command that adds extras to Bluejay, from where it was installed (PEP 610): the name alone finds it only in a
    package index that has it.
    """
    try:
        origin = json.loads(distribution("bluejay").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # its files are here, but it was never installed
        origin = {}
    url, names = origin.get("url", ""), f"[{','.join(extras)}]"
    if "dir_info" in origin:
        option = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {option}'{unquote(urlsplit(url).path)}{names}'"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"pip install 'bluejay{names}{' @ ' if url else ''}{url}'"
