"""What the chat page does, as Chainlit runs it: settings, messages, and tokens as they are written."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import chainlit as cl
from chainlit.input_widget import Slider, TextInput

from grader.errors import GraderError
from grader.learning.chat_page import served
from grader.learning.talk import Message, Reply, Sampling

BUSY = threading.Lock()  # one answer at a time: all windows share the model and its cache
START = Sampling()


async def start() -> None:
    """Show what can be set, and what to expect."""
    talk = served()
    cl.user_session.set("history", [])
    widgets = [
        Slider(
            id="temperature",
            label="Temperature (0: always the most likely token)",
            initial=START.temperature,
            min=0,
            max=2,
            step=0.1,
        ),
        Slider(id="top_k", label="Top k (0: off)", initial=START.top_k, min=0, max=200, step=1),
        Slider(id="top_p", label="Top p", initial=START.top_p, min=0.05, max=1, step=0.05),
        Slider(id="longest", label="Tokens of an answer at most", initial=START.longest, min=8, max=1024, step=8),
    ]
    if talk.template is not None:
        widgets.append(TextInput(id="system", label="System message", initial=""))
    cl.user_session.set("settings", await cl.ChatSettings(widgets).send())
    how = "It answers." if talk.template is not None else "It has no chat template, so it continues what you write."
    cache = "" if talk.has_cache else " It has no cache: every token reads the whole conversation again."
    await cl.Message(f"{how}{cache} There is room for {talk.context:,} tokens.").send()


async def update(settings: dict[str, object]) -> None:
    """Keep what was set for the next answer."""
    cl.user_session.set("settings", settings)


async def answer(message: cl.Message) -> None:
    """Write the answer to a message; the stop button cancels this."""
    settings = cl.user_session.get("settings") or {}
    history: list[Message] = cl.user_session.get("history") or []
    history.append({"role": "user", "content": message.content})
    system = [{"role": "system", "content": settings["system"]}] if settings.get("system") else []
    sampling = Sampling(
        float(settings.get("temperature", START.temperature)),
        int(settings.get("top_k", START.top_k)),
        float(settings.get("top_p", START.top_p)),
        int(settings.get("longest", START.longest)),
    )
    shown, last = cl.Message(""), None
    try:
        async for reply in _replies([*system, *history], sampling):
            await shown.stream_token(reply.text[len(last.text) if last else 0 :])
            last = reply
    except GraderError as error:
        history.pop()
        await cl.ErrorMessage(str(error)).send()
    finally:  # also where it was stopped
        cl.user_session.set("history", history)
        if last is not None:
            history.append({"role": "assistant", "content": last.text})
            await shown.send()
            await cl.Message(last.line, author="measured").send()


async def _replies(messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[Reply]:
    """The replies of a thread that generates; it ends after its token when this is closed or cancelled."""
    loop, found = asyncio.get_running_loop(), asyncio.Queue[Reply | Exception | None]()
    stopped = threading.Event()

    def generate() -> None:
        end: Exception | None = None
        try:
            with BUSY:
                for reply in served().reply(messages, sampling):
                    loop.call_soon_threadsafe(found.put_nowait, reply)
                    if stopped.is_set():
                        break
        except Exception as error:
            end = error
        loop.call_soon_threadsafe(found.put_nowait, end)

    threading.Thread(target=generate, daemon=True).start()
    try:
        while (item := await found.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()


cl.on_chat_start(start)
cl.on_settings_update(update)
cl.on_message(answer)
