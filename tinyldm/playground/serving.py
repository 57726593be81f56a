"""Serving the page on this machine: an address, the page on it, and nothing that stays behind."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from tinyldm.errors import InputError
from tinyldm.playground.cards import style

PORTS = range(7860, 7960)
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
"""Those of the system: the page fetches none."""


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at the port asked for, or at the first free one of PORTS."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: expected an address of this machine") from None
    reason = errno.EADDRINUSE
    for each in PORTS if port is None else [port]:
        try:
            return socket.create_server((address[0], each), family=family)
        except OSError as error:
            reason = error.errno or errno.EADDRINUSE
    ports = f"{PORTS[0]} to {PORTS[-1]}" if port is None else port
    raise InputError(f"--host {host} --port {ports}: cannot listen there: {os.strerror(reason)}")


@contextmanager
def own_folder() -> Iterator[None]:
    """A temporary folder for what gradio writes, such as pictures that are put in.

    It goes at the end of the block. gradio asks where to write as soon as it is imported.
    """
    with tempfile.TemporaryDirectory(prefix="tinyldm-play-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield


@contextmanager
def served(page: Any, at: socket.socket) -> Iterator[str]:
    """Serve the page while the block lasts; its address.

    The server is not that of gradio's launch(), which gives up on a machine that is busy for five
    seconds.
    """
    import uvicorn

    config = uvicorn.Config(
        mounted(page), log_level="warning", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    host, port = at.getsockname()[:2]
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=5)


def mounted(page: Any) -> Any:
    """The application that is nothing but the page."""
    import gradio as gr
    from fastapi import FastAPI

    return gr.mount_gradio_app(
        FastAPI(),
        page,
        path="/",
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        show_error=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="indigo", neutral_hue="slate", **FONTS),
        css=style(),
    )
