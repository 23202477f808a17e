"""Makes the picture of the README: the chat in two windows, above ``sio top``.

python tests/picture.py docs/chat.png

It starts the example of ``conf.d/``, so port 8000 has to be free; it needs chromium and tmux.
"""

from __future__ import annotations

import base64
import html
import json
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from cluster.browser import Browser, Page, find_browser
from cluster.harness import environment, wait_until

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf.d" / "supervisord.conf"
BIN = Path(sys.executable).parent
URL = "http://127.0.0.1:8000/"

WIDTH, HEIGHT = 470, 545
TALK = [
    (0, "Ada", "Which worker are you on?"),
    (1, "Ben", "The other one. It makes no difference."),
]

SHEET = """<!doctype html><style>
html {{ overflow: hidden; }}
body {{ margin: 0; padding: 10px; width: 960px; box-sizing: border-box; background: #fff; }}
div {{ display: flex; gap: 10px; }}
img {{ width: {width}px; box-sizing: border-box; border: 1px solid #aab; border-radius: 6px; }}
pre {{ margin: 10px 0 0; padding: 10px; border-radius: 6px; background: #1b1f26; color: #e7eaef;
      font: 13px/1.35 "DejaVu Sans Mono", monospace; overflow: hidden; }}
</style><div>{windows}</div><pre>{terminal}</pre>"""


def size(page: Page, width: int, height: int) -> None:
    page.call(
        "Emulation.setDeviceMetricsOverride",
        **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def open_chat(browser: Browser) -> Page:
    page = browser.open("about:blank")
    size(page, WIDTH, HEIGHT)
    page.evaluate(f"location.href = {URL!r}")
    wait_until(lambda: page.text("transport").endswith("websocket"), 20, "it is connected")
    wait_until(lambda: page.text("present"), 20, "it says how many there are")
    return page


def screenshot(page: Page) -> str:
    """As base64."""
    data: str = page.call("Page.captureScreenshot", format="png")["data"]
    return data


def say(page: Page, who: str, text: str) -> None:
    page.evaluate(
        f"byId('who').value = {json.dumps(who)}; byId('text').value = {json.dumps(text)};"
        "byId('send').click()"
    )


def top(stack: ExitStack) -> str:
    """What a terminal shows."""
    command = shlex.join([str(BIN / "supervisorctl"), "-c", str(CONF), "sio", "top"])
    tmux = ["tmux", "-L", "supervisor-sio-picture"]
    stack.callback(subprocess.run, [*tmux, "kill-server"])
    subprocess.run(
        [*tmux, "-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "16", command],
        check=True,
        env=environment(),
    )

    def shown() -> str:
        pane = subprocess.run(
            [*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True
        ).stdout.rstrip()
        return pane if "workers_01" in pane else ""

    wait_until(shown, 10, "sio top shows the workers")
    time.sleep(2.5)  # rates are of the last second
    return shown()


def main(target: Path) -> None:
    program = find_browser()
    assert program, "no chromium on the PATH"
    with ExitStack() as stack:
        supervisord = subprocess.Popen(
            [BIN / "supervisord", "-n", "-c", CONF], env=environment(), stdout=subprocess.DEVNULL
        )
        stack.callback(supervisord.wait)
        stack.callback(supervisord.terminate)
        browser = Browser(program)
        stack.callback(browser.close)
        status = [BIN / "supervisorctl", "-c", CONF, "sio", "status"]
        wait_until(
            lambda: subprocess.run(status, capture_output=True, env=environment()).returncode == 0,
            *(20, "the example serves"),
        )
        pages = [open_chat(browser) for _ in range(2)]
        for number, who, text in TALK:
            say(pages[number], who, text)
            time.sleep(0.5)
        pane = top(stack)
        windows = [f'<img src="data:image/png;base64,{screenshot(page)}">' for page in pages]
        text = SHEET.format(width=WIDTH - 5, windows="".join(windows), terminal=html.escape(pane))
        sheet = browser.open("about:blank")
        size(sheet, 960, 100)
        sheet.evaluate(f"document.write({json.dumps(text)}); document.close()")
        time.sleep(0.5)
        size(sheet, 960, sheet.evaluate("document.body.offsetHeight"))
        target.write_bytes(base64.b64decode(screenshot(sheet)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
