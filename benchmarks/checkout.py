"""Programs that import Bluejay from a given checkout, so that two of them can be compared."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MAIN = "from bluejay.cli import main; main()"
FORGET_EDITABLE_INSTALLATION = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildInplaceFinder"]
"""
"""Run at the start of every process: an editable installation would be imported before what PYTHONPATH names."""


@dataclass(frozen=True)
class Checkout:
    """One side of the comparison, and the folder that it works in."""

    name: str
    root: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which this checkout is imported, whichever one is installed for editing."""
        site = self.folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(FORGET_EDITABLE_INSTALLATION, encoding="utf-8")
        return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (self.root / "src", site)))}

    def start(self, *arguments: str | Path, program: str = MAIN, isa: str = "", threads: int = 1) -> subprocess.Popen:
        """Start a Python program that imports this checkout's Bluejay."""
        environment = self.environment | {"OMP_NUM_THREADS": str(threads)}
        environment |= {"BLUEJAY_ISA": isa} if isa else {}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str | Path, program: str = MAIN, isa: str = "", threads: int = 1) -> str:
        """What such a program prints. Raises RuntimeError where it fails."""
        process = self.start(*arguments, program=program, isa=isa, threads=threads)
        out, error = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, arguments))} failed: {error[-2000:]}")
        return out
