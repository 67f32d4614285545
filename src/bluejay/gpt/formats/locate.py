"""The directory of a model, from its path, that of its run, or the name under which it was pulled."""

import contextlib
import difflib
import re
from pathlib import Path

from bluejay.gpt.formats.hub import cached, parse, snapshot_in


def name_on_hub(name: str) -> tuple[str, str] | None:
    """The repository on the hub and the revision that a name means, or a path in the hub's cache; None for others."""
    path = Path(name)
    if not path.exists():
        return parse(name)
    return cached_name(path)


def cached_name(path: Path) -> tuple[str, str] | None:
    """The repository and the revision of a directory in the hub's cache; None for others."""
    parts = path.resolve().parts[-3:]
    kept = re.fullmatch(r"models--(.+)--(.+)", parts[0]) if parts[1:2] == ("snapshots",) else None
    return (f"{kept[1]}/{kept[2]}", parts[2]) if kept else None


def locate(name: str | Path) -> Path:
    """A path that exists, for a training run that of its model and for a repository's folder in the hub's cache that
    of its main revision; otherwise the directory of the pulled model of that name in that cache.

    Makes no network request. Raises FileNotFoundError, naming the command that would provide the model.
    """
    path = Path(name)
    if path.exists():
        made = path / "model"
        if (path / "snapshots").is_dir() and (snapshot := snapshot_in(path, "main")):
            return snapshot
        return made if (path / "recipe.toml").is_file() and made.is_dir() else path
    try:
        repo, revision = parse(str(name))
    except ValueError:
        if near := near_to(path):
            raise FileNotFoundError(f"no model at {path} (did you mean {near}?)") from None
        raise FileNotFoundError(
            f"no model at {path}; a model is a folder of weights or of a run, a GGUF file, or OWNER/MODEL on the hub; "
            "`bluejay train RECIPE` makes one"
        ) from None
    if directory := cached(repo, revision):
        return directory
    near = near_to(path)
    raise FileNotFoundError(
        f"no model at {path}, and none of that name in the hub's cache; `bluejay pull {name}` gets it, "
        f"if {repo} is on the hub{f' (or did you mean {near}?)' if near else ''}"
    )


def near_to(path: Path) -> Path | None:
    """What is there under a name like that of a path that is not: in `runs` and `models`, where models usually are, or
    beside the first part of the path that is missing."""
    with contextlib.suppress(OSError):
        if usual := next((here for here in (Path("runs") / path, Path("models") / path) if here.exists()), None):
            return usual
        missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
        names = difflib.get_close_matches(missing.name, [one.name for one in missing.parent.iterdir()], cutoff=0.8)
        meant = (missing.with_name(name) / path.relative_to(missing) for name in names)
        return next((one for one in meant if one.exists()), None)
    return None


def title(name: str | Path, path: Path) -> str:
    """What a model is called that was asked for by `name` and was found at `path`."""
    if not Path(name).exists():
        return str(name)
    # A training run has its model in a folder of that name; the hub's cache names directories after commits.
    kept = cached_name(path)
    return kept[0] if kept else (path.name == "model" and path.parent.name) or path.name
