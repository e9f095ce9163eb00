"""Draw the dashboard's pictures for README anew, from the real dashboard; needs Pillow: python tests/draw_pictures.py

It runs an emulator with functions of a small shop, four slots and some errors, opens the dashboard's page in Chromium,
and writes `dashboard.png` and `dashboard.gif`, a loop of the lifecycle, into `cmemu_nb/docs`.
"""

from __future__ import annotations

import base64
import importlib
import io
import linecache
import random
import re
import sys
import time
from itertools import pairwise
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lab_browser import chromium
from playwright.sync_api import expect

from cmemu_nb import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, ViewportSize

DOCS = Path(__file__).resolve().parents[1] / "cmemu_nb" / "docs"
PROGRAMS = Path(__file__).resolve().parent / "programs"
PICTURE, LOOP = DOCS / "dashboard.png", DOCS / "dashboard.gif"
LOOP_SIZE: ViewportSize = {"width": 1040, "height": 560}
PICTURE_SIZE: ViewportSize = {"width": 1280, "height": 640}
LAST_MS = 2_500
COLOURS = 96
ITEMS = ("tea", "coffee", "sugar", "salt", "oil", "rice")


def shop(path: Path = PROGRAMS / "shop.py") -> dict[str, Any]:
    """Return the names of the shop's module, whose tracebacks have its source but not the path of this folder."""
    source = path.read_text("utf-8")
    linecache.cache["shop.py"] = len(source), None, source.splitlines(keepends=True), "shop.py"
    sys.modules["shop"] = module = ModuleType("shop")
    exec(compile(source, "shop.py", "exec", dont_inherit=True), vars(module))
    return vars(module)


SHOP = shop()


def orders(emulator: Emulator, number: int, rng: random.Random) -> None:
    """Submit orders of which some lack a price."""
    for _ in range(number):
        order: dict[str, Any] = {"item": rng.choice(ITEMS), "amount": rng.randrange(1, 9), "price": "4.50"}
        if rng.random() < 0.12:
            order["price"] = "4,50"
        emulator.submit("total", order)


def lifecycle(emulator: Emulator, rng: random.Random) -> None:
    """Let orders come faster and faster, then forecasts hold every slot, while the queue grows behind them."""
    for number in (3, 6, 10, 14):
        orders(emulator, number, rng)
        time.sleep(0.6)
    wait_until_idle(emulator)
    hold_every_slot(emulator, rng)
    time.sleep(2)
    SHOP["slots"].set()
    wait_until_idle(emulator)


def wait_until_idle(emulator: Emulator) -> None:
    """Wait until every job has ended."""
    while emulator.lifecycle.unfinished():
        time.sleep(0.1)


def hold_every_slot(emulator: Emulator, rng: random.Random) -> None:
    """Let forecasts hold every slot, and orders wait behind them."""
    SHOP["slots"].clear()
    for days in (7, 14, 30, 90):
        emulator.submit("forecast", {"days": days})
    orders(emulator, 8, rng)


def history(emulator: Emulator, rng: random.Random) -> None:
    """Let jobs run for a while at a changing rate, and cancel one."""
    for number in (4, 9, 14, 22, 12, 18, 26, 8, 16, 20):
        orders(emulator, number, rng)
        time.sleep(1.6)
    emulator.submit("total", {"item": "tea", "amount": 1, "price": "1"}).cancel()


def open_an_error(page: Page) -> None:
    """Show the jobs with a function error, and open the newest."""
    page.get_by_role("button", name=re.compile("function error")).first.click()
    page.get_by_role("tabpanel", name="Jobs").locator("tbody tr").first.click()
    expect(page.get_by_role("region", name="The open job")).to_contain_text("ValueError")


def film(page: Page, work: Thread, end: Callable[[Page], None]) -> list[tuple[float, bytes]]:
    """Return what a page shows, with the time of each picture, while something happens and after what ends it."""
    pictures: list[tuple[float, bytes]] = []
    session = page.context.new_cdp_session(page)

    def keep(frame: dict[str, Any]) -> None:
        pictures.append((frame["metadata"]["timestamp"], base64.b64decode(frame["data"])))
        session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    session.on("Page.screencastFrame", keep)
    session.send("Page.startScreencast", {"format": "png"})
    work.start()
    while work.is_alive():
        page.wait_for_timeout(100)
    end(page)
    page.wait_for_timeout(500)
    session.remove_listener("Page.screencastFrame", keep)
    session.send("Page.stopScreencast")
    return pictures


def write_loop(pictures: list[tuple[float, bytes]], path: Path) -> None:
    """Write pictures as an animated GIF with common colours; the last is shown for longer."""
    image = importlib.import_module("PIL.Image")
    frames = [image.open(io.BytesIO(picture)).convert("RGB") for _, picture in pictures]
    width, height = frames[0].size
    colours = image.new("RGB", (width, 3 * height))
    for position in range(3):
        colours.paste(frames[(position + 1) * (len(frames) - 1) // 3], (0, position * height))
    colours = colours.quantize(COLOURS)
    loop = [frame.quantize(palette=colours, dither=image.Dither.NONE) for frame in frames]
    times = [round(1_000 * at) for at, _ in pictures]
    durations = [*(max(20, then - now) for now, then in pairwise(times)), LAST_MS]
    loop[0].save(path, save_all=True, append_images=loop[1:], duration=durations, loop=0, optimize=True)


def main() -> None:
    """Draw both pictures."""
    rng = random.Random(7)
    settings: dict[str, Any] = {"port": 0, "home": "thread", "max_concurrent_tasks": 4}
    with Emulator(**settings) as emulator, chromium() as context:
        for name in ("total", "forecast"):
            emulator.function(SHOP[name])
        page = context.new_page()
        page.set_viewport_size(LOOP_SIZE)
        page.goto(f"{emulator.ui_url}#token={emulator.token}")
        expect(page.get_by_role("button", name="0 ok", exact=True)).to_be_visible()
        write_loop(film(page, Thread(target=lifecycle, args=(emulator, rng)), open_an_error), LOOP)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="application").click()
        page.set_viewport_size(PICTURE_SIZE)
        history(emulator, rng)
        wait_until_idle(emulator)
        hold_every_slot(emulator, rng)
        open_an_error(page)
        page.get_by_role("button", name="application").click()
        expect(page.get_by_role("button", name=re.compile("held by forecast"))).to_be_visible()
        page.mouse.move(0, 0)
        page.screenshot(path=PICTURE)
        SHOP["slots"].set()


if __name__ == "__main__":
    main()
