"""A real browser for tests: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.conftest import missing

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # tests may run as root; the pages are ours
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Yield a browser that is closed at the end of the block."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        missing("there is no Chromium: install the Debian package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        await browser.close()


class Tab:
    """One tab of a person of their own, and what it complained about.

    complaints: what the page or the browser said on the console, and errors of scripts: breaches of
    the content security policy are among them.
    """

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def forgive(self, *causes: str) -> None:
        """Forget the complaints that a test has brought about by what it did."""
        self.complaints = [
            said for said in self.complaints if not any(cause in said for cause in causes)
        ]
