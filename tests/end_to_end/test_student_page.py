"""The students' page from end to end: a real browser, the real server, the real engine."""

import pytest
from playwright.async_api import expect

from tests.chromium import Tab, chromium
from tests.end_to_end.conftest import RIGHT, MakeSite

pytestmark = pytest.mark.docker

PATIENCE = 60_000  # ms


async def test_a_student_sees_what_becomes_of_their_work(make_site: MakeSite) -> None:
    site = await make_site(docker__slots="1")
    async with site.trial.admin() as admin:
        token = await admin.new_token(await admin.account("ada"))
    attempts = await site.write("ada", RIGHT, "print(int(input()) + 21)", "print(")

    async with chromium() as browser:
        context = await browser.new_context()
        tab = Tab(context, await context.new_page())
        page = tab.page
        await page.goto(site.trial.page)
        await page.get_by_label("Your token").fill(token)
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=PATIENCE)
        site.push(attempts)
        ended = page.locator("[data-tone=good], [data-tone=bad]")
        await expect(ended).to_have_count(3, timeout=PATIENCE)

        cards = {
            id: page.locator(f".attempt[data-id='{id}']") for id in (str(one) for one in attempts)
        }
        right, same, broken = cards.values()
        await expect(right).to_contain_text("Double it")
        await expect(right).to_contain_text("20 of 20")
        await expect(same).to_contain_text("20 of 20")
        await expect(broken).to_contain_text("0 of 20")
        await expect(broken).not_to_contain_text("20 of 20")
        await broken.get_by_role("button", name="Show log").click()
        await expect(broken.get_by_role("region")).to_contain_text("SyntaxError")
        assert tab.complaints == []
        await context.close()
