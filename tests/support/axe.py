"""WCAG 2.2 AA by axe-core, which `scripts/test-web` fetches and names in AIDPOST_NODE_MODULES."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from browser import Browser

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """axe.run(document, {runOnly: RULES}).then((found) => JSON.stringify(found.violations.map(
    (rule) => [rule.id, rule.nodes.map((node) => node.target.join(" ") + ": " + node.failureSummary)])))"""


@functools.cache
def _axe() -> str:
    return (Path(os.environ["AIDPOST_NODE_MODULES"]) / "axe-core/axe.min.js").read_text(encoding="utf-8")


def violations(browser: Browser, url: str) -> Any:
    """What axe-core finds wrong with a page: rule and places."""
    browser.open(url)
    return violations_here(browser)


def violations_here(browser: Browser) -> Any:
    """The same of the page that the browser is on: what a form led to has no address of its own."""
    browser.evaluate(_axe() + ";0")
    return json.loads(browser.evaluate(RUN.replace("RULES", json.dumps(RULES))))
