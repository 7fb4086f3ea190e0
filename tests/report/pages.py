"""Pages as tests read them: with the standard library's parser, and in a browser where there is one."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
VOID = {"meta", "link", "img", "br", "hr", "input", "base", "source", "col"}
LOADING = {"src", "srcset", "poster", "data", "action", "formaction", "background", "cite", "manifest", "ping"}


class Page(html.parser.HTMLParser):
    """Every element with its attributes and text; raises where elements are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {[element['tag'] for element in self.open]}"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "in": [parent["tag"] for parent in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1]["tag"] == tag, f"</{tag}> closes {self.open[-1]['tag']}"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]

    @property
    def text(self):
        return self.all("body")[0]["text"]


def tables(text):
    """By caption, the rows of each table as lists of the cells' texts."""
    by_caption = {}
    for part in re.findall(r"<table.*?</table>", text, re.DOTALL):
        page = Page(f"<html><body>{part}</body></html>")
        rows = re.findall(r"<tr.*?</tr>", part, re.DOTALL)
        cells = [Page(f"<html><body>{row}</body></html>") for row in rows]
        lines = [
            [" ".join(element["text"].split()) for element in row.elements if element["tag"] in ("th", "td")]
            for row in cells
        ]
        by_caption[" ".join(page.all("caption")[0]["text"].split())] = lines
    return by_caption


def browse(page, folder, width):
    """What a browser makes of the page at a width: measures, what it said, and what the page asked a network for."""
    (measures,), said, asked = browse_at(page, folder, [width])
    return measures, said, asked


def browse_at(page, folder, widths):
    """The same at several widths, in one browser: the measures at each of them."""
    folder.mkdir()
    wrapper = folder / "wrapper.html"
    script = """
    const loaded = (frame) => new Promise((resolve) => frame.addEventListener("load", resolve));
    const measured = async (frame) => {
      await loaded(frame);
      const page = frame.contentDocument;
      page.querySelectorAll("details").forEach((details) => { details.open = true; });
      const images = [...page.images];
      await Promise.all(images.map((image) => image.decode().catch(() => null)));
      const root = page.documentElement;
      const cut = [...page.body.querySelectorAll("*")].filter((element) => {
        const box = element.getBoundingClientRect();
        const hidden = getComputedStyle(element).position === "absolute";  // captions that only screen readers read
        return !hidden && (box.right > root.clientWidth + 0.5 || box.left < -0.5
          || (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX !== "visible"));
      }).map((element) => `${element.tagName} ${element.textContent.slice(0, 60)}`);
      return { cut: cut, width: root.clientWidth, scroll: root.scrollWidth, images: images.length,
        decoded: images.filter((image) => image.naturalWidth > 0).length, title: page.title,
        color: getComputedStyle(page.body).color, scripts: page.scripts.length };
    };
    Promise.all([...document.querySelectorAll("iframe")].map(measured)).then((measures) => {
      document.querySelector("pre").textContent = JSON.stringify(measures);
    });"""
    frames = "".join(
        f'<iframe src="{page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>' for width in widths
    )
    wrapper.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frames}<pre></pre><script>{script}</script>")
    log = folder / "net.json"
    words = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-web-security",
        "--dump-dom",
    ]
    words += ["--allow-file-access-from-files", "--disable-background-networking", "--disable-component-update"]
    words += ["--no-first-run", "--disable-sync", "--disable-extensions", "--enable-logging=stderr"]
    words += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run([CHROMIUM, *words, wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    measures = json.loads(re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL).group(1).replace("&quot;", '"'))
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {event["url"] for event in events if event.get("initiator", "").startswith("file:") and "url" in event}
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return measures, said, asked
