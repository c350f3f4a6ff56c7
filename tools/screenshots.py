"""Photograph TensorBoard's pages for the readers of the notebooks: `labs/images/tensorboard_*.png`.

The pages show what the last run of each lab wrote to its log folder, so run or render the labs
first (`standard`, as in the committed notebooks). Needs Chromium or Chrome. Without names, all
pictures are taken; a page is left out, and said so, when its lab has no logs.
"""

import argparse
import base64
import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit.paths import home, write
from tools import cells

import websocket

IMAGES = cells.LABS / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars
--disable-background-networking --disable-component-update --disable-sync
--remote-debugging-port=0 --remote-allow-origins=*
"""
PATIENCE = 60.0  # seconds until a page must show what it is waited for


@dataclass(frozen=True)
class Page:
    """One picture: which logs, which page, what to do there and what must be seen.

    `address` is the part after `#`. `seen` is a text that the page shows when it is ready; then
    `clicks` are made, in their order: the text of a tab, a button or an item of a list, and which
    of those with this text, counted from 0.
    """

    logs: str
    address: str
    seen: str
    clicks: tuple[tuple[str, int], ...] = ()
    size: tuple[int, int] = (1100, 640)


PAGES = {
    "tensorboard_scalars": Page(
        "02_house_prices",
        "scalars&tagFilter=epoch_(loss%7Cmae)&_smoothingWeight=0",
        "epoch_mae",
    ),
    "tensorboard_images": Page(
        "07_tensorboard/summary", "images&tagFilter=airplane", "side by side", size=(1500, 1120)
    ),
    "tensorboard_histograms": Page(
        "07_tensorboard/summary", "histograms", "moving normal", size=(1250, 480)
    ),
    "tensorboard_confusion": Page(
        "07_tensorboard/model-1", "images", "confusion matrix", size=(1250, 760)
    ),
    "tensorboard_hparams": Page(
        "07_tensorboard/study",
        "hparams",
        "he_normal",
        (("validation accuracy", 0), ("Descending", 0)),  # sorted by it
        (1350, 640),
    ),
    "tensorboard_parallel": Page(
        "07_tensorboard/study",
        "hparams",
        "he_normal",
        # … coloured by the accuracy, with a logarithmic axis of learning rates
        (("PARALLEL COORDINATES VIEW", 0), ("validation accuracy", 1), ("Logarithmic", 0)),
        (1350, 860),
    ),
}


# --- TensorBoard ---------------------------------------------------------------------------------


@contextlib.contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """Run TensorBoard on a folder, at a free port; yield its address, ending in `/`.

    Raises `RuntimeError` when it does not start.
    """
    # The page shows the folder's name: only its last part, which says nothing of this machine.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs.name, "--port", "0"]
    command += ["--host", "127.0.0.1", "--load_fast=false"]  # one process: nothing stays behind
    pipe = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=logs.parent, **pipe) as process:
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"TensorBoard .* at (http://\S+)", line):
                    yield found[1]
                    return
            raise RuntimeError("TensorBoard did not start:\n" + "".join(said[-20:]))
        finally:
            process.terminate()


# --- a browser without a window ------------------------------------------------------------------


@contextlib.contextmanager
def browser(size: tuple[int, int]) -> Iterator["Tab"]:
    """Start Chromium with an empty profile and yield its tab.

    Raises `FileNotFoundError` when there is no browser.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed")
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        window = f"--window-size={size[0]},{size[1]}"
        command = [program, *FLAGS.split(), window, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **quiet) as process:
            try:
                yield Tab(Path(profile), size)
            finally:
                process.terminate()


class Tab:
    """A tab, spoken to over the DevTools protocol."""

    # TensorBoard's parts hide their content in shadow trees, which `querySelector` does not enter.
    HELPERS = """
    const all = (root) => [...root.querySelectorAll('*')].flatMap(
      (e) => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
    const visible = (e) => e.getClientRects().length > 0;
    const own = (e) => [...e.childNodes].filter((n) => n.nodeType === 3)
      .map((n) => n.textContent).join('').trim();
    const seen = (text) => all(document).some((e) => visible(e) && own(e).includes(text));
    const items = (text) => all(document).filter((e) =>
      ['tab', 'option', 'radio'].includes(e.getAttribute('role')) && e.textContent.includes(text));
    """

    def __init__(self, profile: Path, size: tuple[int, int]):
        port = wait(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
        address = f"http://127.0.0.1:{port}/json/list"
        tabs = wait(lambda: json.load(urllib.request.urlopen(address, timeout=5)))
        page = next(tab for tab in tabs if tab["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=PATIENCE)
        self.number = 0
        shape = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **shape)

    def call(self, method: str, **parameters) -> dict:
        """Call a method of the protocol and return its result; events are left aside."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def run(self, script: str) -> object:
        """Return the value of a JavaScript expression that may use `HELPERS`."""
        whole = f"(() => {{ {self.HELPERS} return {script}; }})()"
        answer = self.call("Runtime.evaluate", expression=whole, returnByValue=True)
        return answer["result"].get("value")

    def photograph(self, address: str, page: Page) -> bytes:
        """Open an address, click, wait for what must be seen, and return a PNG."""
        self.call("Page.navigate", url=address)
        wait(lambda: self.run(f"seen({page.seen!r})"))
        for text, number in page.clicks:
            wait(partial(self.run, f"items({text!r}).length > {number}"))
            self.run(f"items({text!r})[{number}].click()")
            self.settle()
        self.settle()
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def settle(self) -> None:
        """Wait until two pictures, a second apart, are the same: charts are drawn in steps."""
        before = None
        for _ in range(int(PATIENCE)):
            now = self.call("Page.captureScreenshot", format="png")["data"]
            if now == before:
                return
            before = now
            time.sleep(1)


def wait(condition):
    """Return the first true value of `condition()`; raise `TimeoutError` after `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError):  # not there yet
            if value := condition():
                return value
        time.sleep(0.2)
    raise TimeoutError(f"a page did not show what it was waited for in {PATIENCE:.0f} s")


def take(name: str) -> str:
    """Take one picture, write it, and return a line that says so."""
    page = PAGES[name]
    logs = home() / "logs" / page.logs
    if not any(logs.rglob("events.*")):
        lab = page.logs[:2]
        return f"{name}: no logs in {logs}; first `python -m tools.run {lab} --profile standard`"
    with tensorboard(logs) as address, browser(page.size) as tab:
        picture = tab.photograph(f"{address}#{page.address}", page)
    write(IMAGES / f"{name}.png", picture)
    return f"{name}.png: {len(picture) / 1000:.0f} kB"


def main() -> int:
    """Take the named pictures, or all; 1 when one could not be taken."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PAGES], help="all when left out")
    lines = []
    for name in parser.parse_args().names or PAGES:
        lines.append(take(name))
        print(lines[-1], flush=True)
    return any("no logs" in line for line in lines)


if __name__ == "__main__":
    sys.exit(main())
