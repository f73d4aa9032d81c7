"""The students' page in a real browser, on a real server whose engine does as it is told."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone

import playwright.async_api
import pytest
import pytest_asyncio
from playwright.async_api import Locator, Route, WebSocketRoute, expect

from commserver.services.announcement_service import AnnouncementService
from commserver.trial import Browser as Socket
from tests.chromium import Tab
from tests.fake_sandbox import says
from tests.integration.web.room import Room

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 60_000  # ms for what must come
expect.set_options(timeout=PATIENCE)

# Counts what is read aloud, as those who cannot see the page hear it.
LISTEN = """
window.heard = [];
new MutationObserver(() => {
    const text = document.querySelector("#aloud")?.textContent;
    if (text) window.heard.push(text);
}).observe(document, {subtree: true, childList: true, characterData: true});
"""
# Shows each state that a connection can be in, and says of each whether all of it can be seen.
CONNECTIONS = """
async () => {
    const { Connection } = await import("/static/pages/student/connection.js");
    const shown = new Connection();
    const before = document.querySelector(".connection");
    before.replaceWith(shown.element);
    const inside = (element) => {
        const { left, right, top, width } = element.getBoundingClientRect();
        return left >= 0 && right <= innerWidth && top >= 0 && width > 0
            && element.contains(document.elementFromPoint((left + right) / 2, top + 3));
    };
    const seen = [];
    for (const state of ["connecting", "live", "waiting", "offline", "refused", "closed"]) {
        const seconds = ["waiting", "offline"].includes(state) ? 30 : 0;
        shown.show({ state, seconds });
        const out = [...document.querySelectorAll("header button")].find((one) => inside(one));
        const all = shown.element.scrollWidth <= shown.element.clientWidth && inside(shown.element);
        const fits = document.documentElement.scrollWidth <= innerWidth;
        const name = document.querySelector(".who").clientWidth >= 40;
        seen.push([state, shown.element.textContent, Boolean(fits && out && all && name)]);
    }
    shown.close();
    shown.element.replaceWith(before);
    return seen;
}
"""
CUT = ("WebSocket connection to", "ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION_REFUSED")


class Student(Tab):
    """Somebody at the page."""

    @property
    def cards(self) -> Locator:
        return self.page.locator(".attempt")

    @property
    def places(self) -> Locator:
        return self.page.locator(".attempt[data-tone=waiting] .tile-number")

    async def sign_in(self, token: str) -> None:
        field = self.page.get_by_label("Your token")
        await field.fill(token)
        await field.press("Enter")

    async def state(self, state: str) -> None:
        """Wait until the page says that this is how it is connected."""
        await expect(self.page.locator(f".connection[data-state={state}]")).to_be_visible()

    async def heard(self) -> list[str]:
        """Return what was read aloud, once for each time."""
        said: list[str] = await self.page.evaluate("window.heard")
        return [text for at, text in enumerate(said) if at == 0 or said[at - 1] != text]


class Door:
    """Lets students in, each with a browser profile of their own."""

    def __init__(self, chrome: playwright.async_api.Browser, room: Room) -> None:
        self._chrome = chrome
        self._room = room
        self.students: list[Student] = []

    async def come(self, token: str = "", **context: object) -> Student:
        """Open the page; with a token, sign in and wait until it is live."""
        made = await self._chrome.new_context(**context)  # type: ignore[arg-type]
        student = Student(made, await made.new_page())
        self.students.append(student)
        await student.page.add_init_script(LISTEN)
        await student.page.goto(self._room.page)
        if token:
            await student.sign_in(token)
            await student.state("live")
        return student


@pytest_asyncio.fixture(loop_scope="session")
async def serving(exam: Room) -> AsyncIterator[AsyncExitStack]:
    """The server runs; closing this ends it."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(exam.serving())
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def door(
    chrome: playwright.async_api.Browser, exam: Room, serving: AsyncExitStack
) -> AsyncIterator[Door]:
    door = Door(chrome, exam)
    yield door
    for student in door.students:
        await student.context.close()
        assert student.complaints == []


async def test_two_students_see_their_places_fall_and_each_their_own_result(
    exam: Room, door: Door
) -> None:
    exam.engine.hang()
    await exam.hand_in(student="teacher", title="In the way")
    await exam.hand_in(student="ada", title="Double it")
    await exam.hand_in(student="grace", title="Sum of two")
    ada = await door.come(await exam.token("ada"))
    grace = await door.come(await exam.token("grace"))
    await expect(ada.places).to_have_text(["1"])
    await expect(grace.places).to_have_text(["2"])
    await expect(grace.page.locator(".who")).to_have_text("grace")
    await expect(grace.page).to_have_title("2 in line · My attempts")

    exam.engine.scripts.extend([says("42"), says("41")])
    exam.step()
    await expect(grace.places).to_have_text(["1"])
    await expect(ada.cards).to_contain_text(["Running now"])
    exam.engine.resume()

    await expect(ada.cards).to_have_count(1)
    await expect(ada.cards).to_contain_text(["20 of 20"])
    await expect(ada.cards.locator(".said")).to_have_text(["Accepted"])
    await expect(grace.cards).to_contain_text(["0 of 20"])
    await expect(grace.cards.locator(".said")).to_have_text(["Wrong answer"])
    heard = await grace.heard()
    assert heard[-1].startswith("Sum of two: Wrong answer, 0")
    assert sum("Wrong answer" in text for text in heard) == 1
    assert "Sum of two: place 1 in line" in heard


async def test_what_is_handed_in_while_one_looks_appears_by_itself(exam: Room, door: Door) -> None:
    ada = await door.come(await exam.token())
    await expect(ada.page.get_by_text("Nothing here yet")).to_be_visible()

    await exam.hand_in(title="First")
    await expect(ada.cards).to_contain_text(["Accepted"])
    exam.engine.hang()
    await exam.hand_in(2, title="Second")
    await expect(ada.places).to_have_text(["1"])

    await expect(ada.cards.locator("h2")).to_have_text(["Second", "Second", "First"])
    exam.engine.resume()
    await expect(ada.page.locator("[data-tone=good]")).to_have_count(3)


async def test_an_answer_that_comes_late_undoes_nothing(exam: Room, door: Door) -> None:
    exam.engine.hang()
    ada = await door.come(await exam.token())
    await expect(ada.page.get_by_text("Nothing here yet")).to_be_visible()
    asked, go_on, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        """Have the first answer come last."""
        if asked.is_set():
            await route.continue_()
            return
        answer = await route.fetch()
        asked.set()
        await go_on.wait()
        await route.fulfill(response=answer)
        answered.set()

    await ada.page.route("**/api/v1/me/attempts", hold)
    await exam.hand_in(2)
    async with asyncio.timeout(PATIENCE / 1000):
        await asked.wait()
    await exam.hand_in()
    await expect(ada.cards).to_have_count(3)
    go_on.set()
    async with asyncio.timeout(PATIENCE / 1000):
        await answered.wait()
    await ada.page.wait_for_timeout(200)

    await expect(ada.cards).to_have_count(3)


async def test_a_server_that_goes_away_and_comes_back_loses_and_doubles_nothing(
    exam: Room, door: Door, serving: AsyncExitStack
) -> None:
    ada = await door.come(await exam.token())
    await exam.hand_in(title="Before")
    await expect(ada.cards).to_contain_text(["Accepted"])

    await serving.aclose()
    await ada.state("waiting")
    await expect(ada.page.locator(".connection")).to_contain_text("Reconnecting in")
    await expect(ada.cards).to_contain_text(["Accepted"])
    async with exam.serving():
        await exam.hand_in(title="Meanwhile")
        await ada.state("live")
        await expect(ada.cards.locator("h2")).to_have_text(["Meanwhile", "Before"])
        await expect(ada.page.locator("[data-tone=good]")).to_have_count(2)
        heard = await ada.heard()
        assert sum(text.startswith("Before: Accepted") for text in heard) <= 1
        assert sum(text.startswith("Meanwhile: Accepted") for text in heard) <= 1
        # All that was shown was acknowledged: nobody is told of it again.
        await until(exam, "SELECT count(*) FROM notices WHERE delivered_at IS NOT NULL", 2)
        await until(exam, "SELECT count(*) FROM notices WHERE delivered_at IS NULL", 0)
        ada.forgive(*CUT)
        await ada.context.close()


async def test_a_network_that_goes_away_and_comes_back_is_noticed_at_once(
    exam: Room, door: Door
) -> None:
    exam.engine.hang()
    await exam.hand_in(2)
    token = await exam.token()
    ada = await door.come(token)
    await expect(ada.places).to_have_text(["1"])

    await ada.context.set_offline(True)
    await ada.state("offline")
    await expect(ada.page.locator(".connection")).to_contain_text("Offline")
    other = await Socket().open(exam.socket, token)
    exam.engine.resume()
    await other.until(lambda: sum("seq" in packet for packet in other.packets) == 2, 10)
    await other.send({"cmd": "ACK", "seq": "2"})  # so the page is not told of them any more
    await until(exam, "SELECT count(*) FROM notices WHERE delivered_at IS NULL", 0)
    await other.close()
    await ada.context.set_offline(False)

    await ada.state("live")
    await expect(ada.page.locator("[data-tone=good]")).to_have_count(2)
    await expect(ada.cards).to_have_count(2)
    ada.forgive(*CUT)


async def test_a_wrong_token_is_told_in_words_and_another_try_is_easy(
    exam: Room, door: Door
) -> None:
    ada = await door.come()

    for wrong, said in (
        ("wrong", "This token is not valid"),
        ("", "Paste your token first"),
        ("two words", "This is no token"),
        ("élève", "This is no token"),
    ):
        await ada.sign_in(wrong)
        await expect(ada.page.get_by_role("alert")).to_contain_text(said)
        await expect(ada.page.get_by_label("Your token")).to_be_focused()
        await expect(ada.page.get_by_label("Your token")).to_have_value("")
    await ada.sign_in(await exam.token())

    await ada.state("live")
    ada.forgive("401 (Unauthorized)")


async def test_names_and_logs_are_text_whatever_is_in_them(exam: Room, door: Door) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>owned</script>"
    exam.engine.otherwise = says("<b>41</b>")
    await exam.hand_in(student=evil, title=evil)
    ada = await door.come(await exam.token(evil))

    await expect(ada.cards.locator("h2")).to_have_text([evil])
    await expect(ada.page.locator(".who")).to_have_text(evil)
    await expect(ada.page.locator(".who *, .attempt img, .attempt script")).to_have_count(0)
    await expect(ada.page).to_have_title("My attempts")
    await ada.page.get_by_role("button", name="Show log").click()
    log = ada.page.get_by_role("region", name="Log of <img")
    await expect(log).to_contain_text("<b>41</b>")
    await expect(ada.page.get_by_role("button", name="Hide log")).to_be_focused()
    await ada.page.keyboard.press("Enter")

    await expect(log).to_be_hidden()


async def test_what_is_said_to_everybody_is_shown_as_text_with_its_end_in_local_time(
    exam: Room, door: Door
) -> None:
    site = exam.site
    said = AnnouncementService(site.database, site.daos, site.clock)
    until = datetime.now(UTC) + timedelta(hours=1)
    await said.announce("An hour left. <b>Hurry</b>", until)

    ada = await door.come(await exam.token(), locale="en-GB", timezone_id="Asia/Tokyo")

    banner = ada.page.get_by_role("status", name="Announcement")
    await expect(banner.locator("p")).to_have_text("An hour left. <b>Hurry</b>")
    local = until.astimezone(timezone(timedelta(hours=9)))
    await expect(banner.locator("time")).to_have_text(re.compile(f"^until (.+, )?{local:%H:%M}$"))


async def test_progress_is_shown_and_an_announcement_whose_time_is_over_is_not(
    exam: Room, door: Door
) -> None:
    exam.engine.hang()
    attempt, other = await exam.hand_in(2)
    ada = await door.come()
    await expect(ada.page.get_by_label("Your token")).to_be_visible()
    until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()

    def answer(socket: WebSocketRoute) -> None:
        """Play the server's side of the socket."""

        def heard(text: str | bytes) -> None:
            packet = json.loads(text)
            socket.send(json.dumps({"cmd": "OK"}))
            if packet["cmd"] == "ANNOUNCEMENTS":
                said = {"cmd": "ANNOUNCEMENT", "id": "1", "text": "Over soon", "until": until}
                socket.send(json.dumps(said))

        socket.on_message(heard)
        sockets.append(socket)

    sockets: list[WebSocketRoute] = []
    await ada.page.route_web_socket("**/*", answer)
    await ada.sign_in(await exam.token())
    await expect(ada.cards).to_contain_text(["Running now", "Next in its line"])
    rows = await exam.site.sql("SELECT user_exercise_id, id FROM executions")
    runs = {row[0]: row[1] for row in rows}
    run = runs[attempt]
    packet = {"cmd": "PROGRESS", "user_exercice_id": str(attempt), "run": run, "stage": "run"}
    sockets[0].send(json.dumps({**packet, "text": "case 2 of 5"}))

    await expect(ada.cards).to_contain_text(["case 2 of 5", "Next in its line"])
    sockets[0].send(json.dumps({**packet, "text": "1/2"}))
    await expect(ada.cards).to_contain_text(["Step 2 of 2", "Next in its line"])
    place = {"cmd": "PLACE_IN_QUEUE", "user_exercice_id": str(other), "place": "0"}
    sockets[0].send(json.dumps({**place, "run": runs[other]}))
    await expect(ada.page.locator(".summary")).to_have_text("2 running")
    await expect(ada.page.get_by_text("Over soon")).to_have_count(0)
    assert len(sockets) == 1


async def test_what_waits_can_be_cancelled_by_whoever_means_it(exam: Room, door: Door) -> None:
    exam.engine.hang()
    await exam.hand_in(2)
    ada = await door.come(await exam.token())
    cancel = ada.page.get_by_role("button", name="Cancel Double it")
    press = ada.page.keyboard.press

    await cancel.dblclick()  # the second one says No
    await expect(cancel).to_be_focused()
    for no in ("Enter", "Escape"):
        await press("Enter")
        await expect(cancel).to_have_count(0)
        await expect(ada.page.get_by_role("group", name="Call off Double it")).to_be_visible()
        await press(no)
        await expect(cancel).to_be_focused()
    await expect(ada.places).to_have_text(["1"])
    for key in ("Enter", "Shift+Tab", "Enter"):
        await press(key)

    await expect(ada.page.locator("[data-tone=void]")).to_contain_text("does not count")
    await expect(ada.page.locator("[data-tone=void] h2")).to_be_focused()
    await expect(cancel).to_have_count(0)
    exam.engine.resume()
    await expect(ada.page.locator("[data-tone=good]")).to_have_count(1)


async def test_what_runs_comes_first_then_what_waits_then_the_newest_result(
    exam: Room, door: Door
) -> None:
    exam.engine.scripts.extend([says("42")] * 2)
    ada = await door.come(await exam.token())
    for title in ("Older", "Newer"):
        await exam.hand_in(title=title)
        await expect(ada.cards.filter(has_text=title)).to_contain_text("Accepted")
    exam.engine.hang()
    for title in ("Runs", "Next", "Last"):
        await exam.hand_in(title=title)
    names = ada.cards.locator("h2")
    summary = ada.page.locator(".summary")

    await expect(names).to_have_text(["Runs", "Next", "Last", "Newer", "Older"])
    await expect(summary).to_have_text("1 running · 2 waiting")
    await ada.page.get_by_role("button", name="Cancel Last").focus()
    exam.step()
    await expect(names).to_have_text(["Next", "Last", "Runs", "Newer", "Older"])
    await expect(summary).to_have_text("1 running · 1 waiting")
    await expect(ada.page.get_by_role("button", name="Cancel Last")).to_be_focused()
    exam.engine.resume()

    await expect(names).to_have_text(["Last", "Next", "Runs", "Newer", "Older"])
    await expect(summary).to_have_text("")


async def test_a_fault_says_that_it_is_not_the_students_and_who_has_to_act(
    exam: Room, door: Door
) -> None:
    exercise = await exam.site.exercise("format = nonsense", title="Broken")
    ada = await door.come(await exam.token())

    exam.push([await exam.site.attempt(exercise)])

    card = ada.cards.filter(has_text="Could not be graded")
    await expect(card).to_contain_text("This is not your fault")
    await expect(card).to_contain_text("Your teacher has to put the exercise right")


async def test_somebody_who_signs_out_leaves_nothing_behind(exam: Room, door: Door) -> None:
    token = await exam.token()
    await exam.hand_in()
    ada = await door.come(token)
    await expect(ada.cards).to_have_count(1)

    await ada.page.get_by_role("button", name="Sign out").click()

    await expect(ada.page.get_by_label("Your token")).to_be_focused()
    await expect(ada.cards).to_have_count(0)
    assert await ada.page.evaluate("sessionStorage.length + localStorage.length") == 0
    await ada.page.reload()
    await expect(ada.page.get_by_label("Your token")).to_be_visible()


async def test_it_works_by_keyboard_alone_and_the_token_is_nowhere_to_be_seen(
    exam: Room, door: Door
) -> None:
    token = await exam.token()
    await exam.hand_in()
    ada = await door.come()
    addresses: list[str] = []
    ada.page.on("request", lambda request: addresses.append(request.url))
    ada.page.on("websocket", lambda socket: addresses.append(socket.url))

    await ada.page.keyboard.type(token)  # the field has the focus
    await ada.page.keyboard.press("Tab")
    await ada.page.keyboard.press("Tab")
    await ada.page.keyboard.press("Enter")
    await ada.state("live")
    await expect(ada.page.get_by_role("heading", name="My attempts")).to_be_focused()
    await expect(ada.cards).to_have_count(1)
    for name in ("Show log", "Hide log"):
        await expect(ada.page.get_by_role("button", name=name)).to_have_count(1)
        while not await ada.page.get_by_role("button", name=name).evaluate(
            "one => one === document.activeElement"
        ):
            await ada.page.keyboard.press("Tab")
        await ada.page.keyboard.press("Enter")

    assert len(addresses) > 2
    assert [url for url in addresses if token in url] == []
    assert token not in await ada.page.content()
    assert token not in ada.page.url
    assert await ada.page.evaluate("sessionStorage.length + localStorage.length") == 0
    assert await ada.page.evaluate("document.cookie") == ""
    assert await ada.page.evaluate("document.querySelectorAll('input').length") == 0


async def test_who_wants_to_stay_signed_in_does_so_in_this_tab_alone(
    exam: Room, door: Door
) -> None:
    token = await exam.token()
    ada = await door.come()
    await ada.page.get_by_label("Stay signed in on this tab").check()
    await ada.sign_in(token)
    await ada.state("live")

    await ada.page.reload()
    await ada.state("live")
    other = await ada.context.new_page()
    await other.goto(exam.page)

    await expect(other.get_by_label("Your token")).to_be_visible()
    assert await ada.page.evaluate("localStorage.length") == 0
    await ada.page.get_by_role("button", name="Sign out").click()
    await expect(ada.page.get_by_label("Your token")).to_be_focused()
    assert await ada.page.evaluate("sessionStorage.length") == 0


async def test_a_token_that_is_revoked_ends_the_session_with_words(exam: Room, door: Door) -> None:
    token = await exam.token()
    ada = await door.come(token)
    for one in await exam.site.admin.tokens():
        await exam.site.admin.revoke(one.sha256)

    await exam.hand_in()  # the page looks up what that is

    await expect(ada.page.get_by_role("alert")).to_contain_text("not valid")
    await expect(ada.page.get_by_label("Your token")).to_be_focused()
    ada.forgive("401 (Unauthorized)")


async def test_nothing_is_cut_off_on_any_screen_by_day_and_night(exam: Room, door: Door) -> None:
    student = "somebody_whose_user_name_is_much_too_long_for_a_phone@school.example"
    await exam.hand_in(
        student=student,
        title="An exercise whose name has a_word_that_is_much_too_long_for_a_phone",
    )
    ada = await door.come(await exam.token(student))
    await expect(ada.cards).to_contain_text(["Accepted"])

    for width in (320, 360, 390, 480, 1280, 1920):
        await ada.page.set_viewport_size({"width": width, "height": 800})
        seen = await ada.page.evaluate(CONNECTIONS)
        assert [(state, text) for state, text, fits in seen if not fits] == [], width
        assert len(seen) == 6
    colours = []
    for scheme in ("light", "dark"):
        await ada.page.emulate_media(color_scheme=scheme)
        colours.append(await ada.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(244, 245, 248)", "rgb(16, 20, 27)"]


async def until(room: Room, query: str, wanted: int) -> None:
    """Wait until a count is what it should be."""
    async with asyncio.timeout(PATIENCE / 1000):
        for _ in itertools.count():
            if await room.site.sql(query) == [(wanted,)]:
                return
            await asyncio.sleep(0.05)
