"""Headless Chromium for pages that scripts fill: what a reader sees of them, shadow roots included."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp

BROWSER = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
START_SECONDS = 60
TEXTS = """(() => {
  const texts = [];
  const walk = (node) => node.childNodes.forEach((child) => {
    if (child.nodeType === Node.TEXT_NODE) texts.push(child.textContent.trim());
    if (child.nodeType !== Node.ELEMENT_NODE || ['STYLE', 'SCRIPT'].includes(child.tagName)) return;
    if (child.shadowRoot) walk(child.shadowRoot);
    walk(child);
  });
  walk(document.body);
  return texts.filter(Boolean).join('\\n');
})()"""


def shown(address: str, enough: Callable[[list[str]], bool], seconds: float = 60) -> list[str]:
    """Return the texts of a page as soon as they are enough, or those that are there when the time is up."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(BROWSER), *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", address]
        with _printing(command, r"DevTools listening on ws://127\.0\.0\.1:(\d+)/") as port:
            return asyncio.run(_texts(f"http://127.0.0.1:{port}/json", enough, time.monotonic() + seconds))


async def _texts(debugger: str, enough: Callable[[list[str]], bool], limit: float) -> list[str]:
    async with aiohttp.ClientSession() as session:
        async with session.get(debugger) as answer:
            pages = await answer.json(content_type=None)
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            number = 0
            while True:
                number += 1
                asked = {"id": number, "method": "Runtime.evaluate", "params": {"expression": TEXTS}}
                await socket.send_json(asked)
                while (reply := await socket.receive_json()).get("id") != number:
                    pass
                texts = reply["result"]["result"].get("value", "").splitlines()  # no body yet: no value
                if enough(texts) or time.monotonic() > limit:
                    return texts
                await asyncio.sleep(0.2)


@contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """Serve a folder of logs; give the address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", "0"]
    with _printing(command, r"(http://127\.0\.0\.1:\d+/)") as address:
        yield address


@contextmanager
def _printing(command: Sequence[str], pattern: str) -> Iterator[str]:
    """Run a program until the block ends; give what it prints about itself once it is ready."""
    with tempfile.NamedTemporaryFile() as printed:  # a pipe that nobody empties would stop it in the end
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=printed, start_new_session=True)
        try:
            limit = time.monotonic() + START_SECONDS
            while (found := re.search(pattern, said := Path(printed.name).read_text(errors="replace"))) is None:
                assert process.poll() is None, f"{command[0]} ended: {said[-2000:]}"
                assert time.monotonic() < limit, f"{command[0]} is not ready: {said[-2000:]}"
                time.sleep(0.05)
            yield found[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a browser has processes of its own
            process.wait()
