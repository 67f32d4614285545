"""The directory of a model, from a path or from the name under which it was pulled."""

from pathlib import Path

from bluejay.gpt.formats.hub import cached, parse


def locate(name: str | Path) -> Path:
    """A path that exists, unchanged; otherwise the directory of the pulled model of that name in the hub's cache.

    Makes no network request. Raises FileNotFoundError, naming the command that would provide the model.
    """
    path = Path(name)
    if path.exists():
        return path
    try:
        repo, revision = parse(str(name))
    except ValueError:
        raise FileNotFoundError(f"no model at {path}; `bluejay train RECIPE` makes one") from None
    if directory := cached(repo, revision):
        return directory
    raise FileNotFoundError(
        f"no model at {path}, and none of that name in the hub's cache; `bluejay pull {name}` gets it, "
        f"if {repo} is on the hub"
    )
