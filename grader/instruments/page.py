"""A page in the browser that asks a function, and shows its words as they come, to several visitors at once."""

import html
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST_BYTES = 100_000  # of a question
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>TITLE</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}
textarea{width:100%;box-sizing:border-box;font:inherit}output{white-space:pre-wrap;display:block;margin-top:1rem}</style>
<h1>TITLE</h1><form><label>Your words<textarea name="words" rows="3" required></textarea></label>
<button>Continue</button></form><output aria-live="polite"></output>
<script>
const form = document.forms[0], shown = document.querySelector("output"), button = form.querySelector("button")
form.onsubmit = async event => {
  event.preventDefault(); button.disabled = true; shown.textContent = form.words.value
  try {
    const reader = (await fetch("ask", {method: "POST", body: form.words.value})).body.getReader()
    const decoder = new TextDecoder()
    for (let part; !(part = await reader.read()).done;) shown.textContent += decoder.decode(part.value, {stream: true})
  } finally { button.disabled = false }
}
</script></html>"""


@contextmanager
def served(answer: Callable[[str], Iterator[str]], title: str, port: int = 0) -> Iterator[str]:
    """Serve the page on this machine while the block runs, and give its address.

    answer: called with a visitor's words, in a thread of that visitor's own; gives pieces of text. Its iterator is
    closed when the visitor leaves before the end. port: 0 for any that is free.
    """

    class Visit(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._begin("text/html")
            self.wfile.write(PAGE.replace("TITLE", html.escape(title)).encode())

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > MOST_BYTES or self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                self.send_error(400)
                return
            words = self.rfile.read(length).decode(errors="replace")
            self._begin("text/plain")
            pieces = answer(words)
            try:
                for piece in pieces:
                    self.wfile.write(piece.encode())
                    self.wfile.flush()
            except ConnectionError:
                pass  # the visitor has left
            except Exception as error:  # told where somebody reads, and not only where the server runs
                self.wfile.write(f"\n[The answer ends here: {type(error).__name__}: {error}]".encode())
            finally:
                getattr(pieces, "close", lambda: None)()

        def _begin(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: the lines would stand in the notebook."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Visit)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(url: str, words: str) -> str:
    """What a visitor of the page at `url` is answered, once the whole answer is there."""
    question = urllib.request.Request(f"{url}ask", data=words.encode(), headers={"Content-Type": "text/plain"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is asked, whatever the proxy
    with opener.open(question, timeout=300) as given:
        return str(given.read().decode())
