"""Checks of what a page shows: axe-core's rules, names of buttons, sizes of controls, width."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

AXE = Path(__file__).parents[1] / "node" / "node_modules" / "axe-core" / "axe.min.js"

TOUCH_PIXELS = 44
"""Least height of controls on touch screens."""

_RUN = """async (only) => {
  const options = only
    ? { runOnly: { type: "rule", values: only } }
    : { rules: { "target-size": { enabled: true } } };
  const { violations } = await axe.run(document, { ...options, resultTypes: ["violations"] });
  const told = ({ html, failureSummary }) => `${html} ${failureSummary}`;
  return violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(told) }));
}"""

_NAMES = """() => {
  axe.setup(document);
  const buttons = [...document.querySelectorAll("button")];
  const shown = buttons.filter((own) => own.checkVisibility({ visibilityProperty: true }));
  const names = shown.map((own) => axe.commons.text.accessibleText(own));
  axe.teardown();
  return names;
}"""

_SMALL = """(least) => [...document.querySelectorAll("button, select, summary, textarea, input, .tick, a")]
  .filter((own) => own.checkVisibility() && !own.closest(".unseen") && !own.matches(".tick input"))
  .map((own) => [own.outerHTML.slice(0, 120), Math.round(own.getBoundingClientRect().height)])
  .filter(([, height]) => height < least)"""


_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((own) => own.getBoundingClientRect().right > innerWidth + 1)
  .map((own) => own.outerHTML.slice(0, 100))"""


@cache
def _axe() -> str:
    if not AXE.exists():
        pytest.fail(
            "axe-core is missing. Install npm (Debian, Ubuntu: apt-get install npm), then: make setup"
        )
    return AXE.read_text("utf-8")


def violations(page: Page, *only: str) -> list[dict[str, Any]]:
    """Return what axe-core finds, by all of its rules or by some of them."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(_axe())
    found: list[dict[str, Any]] = page.evaluate(_RUN, list(only) or None)
    return found


def assert_accessible(page: Page, *only: str) -> None:
    """Check the page with axe-core."""
    found = violations(page, *only)
    assert found == [], json.dumps(found, indent=1)


def assert_buttons_have_different_names(page: Page) -> None:
    """Check that people who hear only the names of the buttons can tell them apart."""
    names: list[str] = page.evaluate(_NAMES)
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def assert_controls_are_large(page: Page) -> None:
    """Check that controls are large enough for fingers."""
    small: list[Any] = page.evaluate(_SMALL, TOUCH_PIXELS)
    assert small == [], small


def assert_fits(page: Page) -> None:
    """Check that the page does not scroll sideways."""
    width, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner, (width, inner, page.evaluate(_WIDE))
