"""Judges a page as its readers meet it: python -m benchmarks.pages REPORT [--out FOLDER]

Drives the installed Chromium over its DevTools: each language, width and colour scheme is screenshot and judged by
axe-core (from the npm registry, kept in .bench), pictures are stepped through by keyboard, and every request is
counted. The last line is JSON: violations, requests, refusals of the page's own policy, and errors of its scripts.
"""

import argparse
import base64
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

AXE = "axe-core@4.14.1"
LANGUAGES = {"en": "#en", "zh": "#zh"}
WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)
# Scrolls through, so that every picture wakes, and waits until none is left asleep.
WAKE = """(async () => {
  const step = innerHeight / 2;
  for (let y = 0; y < document.body.scrollHeight; y += step) {
    scrollTo({ top: y, behavior: 'instant' });
    await new Promise((done) => setTimeout(done, 60));
  }
  scrollTo({ top: 0, behavior: 'instant' });
  await new Promise((done) => setTimeout(done, 300));
  const seen = [...document.querySelectorAll('.plot')].filter((plot) => plot.offsetParent);
  return { pictures: seen.length, awake: seen.filter((plot) => plot.querySelector('div > svg')).length,
           sideways: document.documentElement.scrollWidth - innerWidth };
})()"""
STEP = """(async () => {
  const plot = [...document.querySelectorAll('.plot')].find((plot) => plot.offsetParent);
  if (!plot) return [];
  plot.focus();
  const told = plot.parentElement.querySelector('.told');
  const heard = [];
  for (const key of ['ArrowRight', 'ArrowRight', 'End']) {
    plot.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    heard.push(told.textContent);
  }
  plot.blur();
  return heard;
})()"""
JUDGE = """axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations.map(
  (one) => ({ rule: one.id, impact: one.impact, nodes: one.nodes.length, first: one.nodes[0].html.slice(0, 200) })))"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".bench/pages"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    axe = fetch_axe(Path(".bench"))
    found: dict[str, Any] = {"violations": 0, "requests": 0, "refused": 0, "errors": 0, "views": []}
    for language, width, scheme in itertools.product(LANGUAGES, WIDTHS, SCHEMES):
        # A browser for each view: nothing of one carries over to the next.
        with browse() as browser:
            address = options.report.resolve().as_uri() + LANGUAGES[language]
            view = judge_view(browser, address, width, scheme, axe)
            picture = options.out / f"{language}-{width}-{scheme}.png"
            picture.write_bytes(browser.shoot(width))
        print(json.dumps({"language": language, "width": width, "scheme": scheme, **view}, ensure_ascii=False))
        for key in ("violations", "requests", "refused", "errors"):
            found[key] += len(view[key])
        found["views"].append({"picture": picture.name, **view["pictures"]})
    print(json.dumps(found))
    sys.exit(1 if found["violations"] or found["requests"] or found["refused"] or found["errors"] else 0)


class Browser:
    """One tab of Chromium: commands, and the events that came meanwhile."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self.events.append(message)

    def run(self, script: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def shoot(self, width: int) -> bytes:
        """The whole page, as PNG."""
        height = min(int(self.run("document.documentElement.scrollHeight")), 16_000)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def named(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") in methods]


def judge_view(browser: Browser, address: str, width: int, scheme: str, axe: str) -> dict[str, Any]:
    for domain in ("Page", "Network", "Runtime", "Log"):
        browser.ask(f"{domain}.enable")
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.ask("Page.navigate", url=address)
    while browser.run("document.readyState") != "complete":
        time.sleep(0.05)
    pictures = browser.run(WAKE)
    heard = browser.run(STEP)
    browser.run(axe)
    violations = browser.run(JUDGE)
    urls = [sent["request"]["url"] for sent in browser.named("Network.requestWillBeSent")]
    logged = [entry["entry"]["text"] for entry in browser.named("Log.entryAdded")]
    refused = [text for text in logged if "Content Security Policy" in text]
    thrown = [one["exceptionDetails"]["text"] for one in browser.named("Runtime.exceptionThrown")]
    return {
        "violations": violations,
        # The page's own file is the one that may be asked for.
        "requests": [url for url in urls if not url.startswith(address.split("#")[0])],
        "refused": refused,
        "errors": thrown + [text for text in logged if text not in refused],
        "pictures": pictures,
        "heard": heard,
    }


@contextmanager
def browse() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = ["chromium", *QUIET, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port_file = Path(folder) / "DevToolsActivePort"
            while not port_file.exists() or not port_file.read_text().strip():
                if process.poll() is not None:
                    raise SystemExit("chromium ended at once: install it (Debian: apt-get install chromium)")
                time.sleep(0.05)
            port = port_file.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                page = next(tab for tab in json.load(answer) if tab["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None, ping_interval=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
            process.wait()


def fetch_axe(cache: Path) -> str:
    """axe-core's script; fetched once by npm."""
    script = cache / "axe" / f"{AXE}.js"
    if not script.exists():
        script.parent.mkdir(parents=True, exist_ok=True)
        (cache / ".gitignore").write_text("*\n")
        packed = subprocess.run(["npm", "pack", AXE], cwd=script.parent, check=True, capture_output=True, text=True)
        with tarfile.open(script.parent / packed.stdout.split()[-1]) as archive:
            content = archive.extractfile("package/axe.min.js")
            assert content is not None
            script.write_bytes(content.read())
    return script.read_text()


if __name__ == "__main__":
    main()
