"""The pages in a real browser: accessible by axe-core, no wider than the window, and whole in print."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from ownchat.evaluate.page import render_report
from ownchat.pipeline.compare import Comparison, Facts, recommend
from ownchat.pipeline.compare_page import render_comparison

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PACKAGE = "axe_core_python"  # brings axe.min.js
GRAVE = ("serious", "critical")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed: pip install 'ownchat[test]'"),
]

# The page stands in a frame of the width that is asked for, since a window has at least 500 pixels. Everything is
# opened before it is looked at, and the result takes the place of the frame, to be read from the dumped DOM.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><body style="margin:0">
<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>
addEventListener("message", event => {{ document.body.textContent = "FOUND" + event.data + "FOUND"; }});
</script>
"""
LOOK = """
addEventListener("load", async () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  const width = document.documentElement.scrollWidth;
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const violations = found.violations.map(v => ({
    id: v.id, impact: v.impact, nodes: v.nodes.map(n => n.html.slice(0, 200) + " " + (n.any[0]?.message ?? "")),
  }));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const text = JSON.stringify({violations, passes: found.passes.map(p => p.id), width, inner: innerWidth, dark});
  parent.postMessage(text, "*");
});
"""


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def chromium(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [CHROMIUM, "--headless", *root, "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--hide-scrollbars", f"--user-data-dir={home}", "--virtual-time-budget=20000", *arguments]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def look(text: str, width: int, folder: Path, *, dark: bool = False) -> dict[str, Any]:
    """What axe-core finds on a page, and how wide the page is in a window of ``width`` pixels."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    axe = next(Path(spec.origin).parent.rglob("axe.min.js")).read_text(encoding="utf-8")
    page = folder / "page.html"
    page.write_text(text.replace("</body>", f"<script>{axe}</script><script>{LOOK}</script></body>"), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    done = chromium(f"--window-size={max(width, 500)},900", *scheme, "--dump-dom", frame.as_uri(), home=folder / "b")
    found = re.search(r"FOUND(\{.*\})FOUND</body>", done.stdout, flags=re.S)
    assert found is not None, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def check(text: str, width: int, folder: Path, *, dark: bool) -> None:
    found = look(text, width, folder, dark=dark)
    assert found["inner"] == width and found["dark"] is dark
    assert {"color-contrast", "scope-attr-valid"} <= set(found["passes"])  # axe did look
    assert [each for each in found["violations"] if each["impact"] in GRAVE] == []
    assert found["width"] <= width


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True), slow(1280, False), slow(360, True)])
def test_report_is_accessible_and_fits(full_report, metrics, settings, ladder, tmp_path, width, dark):
    check(render_report(full_report, metrics, settings, ladder), width, tmp_path, dark=dark)


def comparison() -> Comparison:
    """Three runs, of which the last is not finished, with figures of plausible ones."""

    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.12}

    runs = tuple(
        Facts(
            name=name, called=name, status="finished" if loss else "training, step 40", settings={}, tokens=50_642,
            records={"train": 403, "valid": 50, "test": 50}, trained_tokens=24_182, promoted=promoted,
            training={"steps": 50, "tokens_per_second": 1874.2, "seconds": 211.3},
            curve=[(0, 3.8), (25, 3.1), (50, loss or 3.0)], cost={"seconds": 302.0, "watt_hours": 0.7},
            held_out={"base": {"loss": estimate(3.9)}, "tuned": {"loss": estimate(loss), "chrf": estimate(10 * loss)}}
            if loss else {},
        )
        for name, loss, promoted in (("inbox", 3.1, True), ("inbox-with-a-long-name", 2.9, None), ("third", 0, False))
    )  # fmt: skip
    pair = {"measure": "loss", "records": 50, "groups": 48, "first": estimate(3.1), "second": estimate(2.9),
            "difference": {"value": -0.2, "low": -0.25, "high": -0.14}, "verdict": "better"}  # fmt: skip
    pairs: dict[str, Any] = {runs[1].name: pair, "third": "third is not evaluated: training, step 40"}
    differing = {"train.epochs": [2.0, 3.0, 3.0], "data.system": [None, "You answer for a company. " * 4, None]}
    return Comparison(runs, differing, pairs, recommend(runs, pairs))


@pytest.mark.parametrize(("width", "dark"), [(360, True), slow(1280, False)])
def test_comparison_is_accessible_and_fits(tmp_path, width, dark):
    check(render_comparison(comparison()), width, tmp_path, dark=dark)


def test_axe_sees_what_is_wrong(full_report, metrics, settings, tmp_path):
    text = render_report(full_report, metrics, settings)
    broken = text.replace("--quiet: #5b626b", "--quiet: #c5c8cc").replace('<html lang="en">', "<html>")
    found = {each["id"] for each in look(broken, 1280, tmp_path)["violations"] if each["impact"] in GRAVE}
    assert {"color-contrast", "html-has-lang"} <= found


def test_print_has_all_of_it(full_report, metrics, settings, ladder, tmp_path):
    (tmp_path / "page.html").write_text(render_report(full_report, metrics, settings, ladder), encoding="utf-8")
    file = tmp_path / "page.pdf"
    chromium(f"--print-to-pdf={file}", "--no-pdf-header-footer", (tmp_path / "page.html").as_uri(),
             home=tmp_path / "browser")  # fmt: skip
    pages = PdfReader(file).pages
    text = re.sub(r"\s+", " ", " ".join(page.extract_text() for page in pages))
    for expected in (
        "Held-out loss fell from 3.95 to 2.96", "What to do", "--epochs 4", "The 4 where the loss fell most",
        "Loss of the real reply 4.10 before", "Confusion table of the base", "Intel(R) Xeon(R)",
    ):  # fmt: skip
        assert expected in text, expected  # also what is folded on the screen
    assert 3 <= len(pages) <= 20
