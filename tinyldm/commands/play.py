"""python -m tinyldm play: a page in the browser that asks a trained run, watches and compares."""

from __future__ import annotations

import argparse
import threading
import webbrowser
from importlib.util import find_spec

from tinyldm.cli import Parser, whole
from tinyldm.errors import InputError, say

EXAMPLES = """examples:
  python -m tinyldm play runs/toy-1
  python -m tinyldm play runs/toy-1 --no-browser --port 8000
      on a server; from your own machine: ssh -L 8000:127.0.0.1:8000 SERVER
"""
PORT = whole(1, 65535)


def add_arguments(parser: Parser) -> None:
    """The options of python -m tinyldm play."""
    parser.end_with(EXAMPLES)
    parser.add_argument(
        "run", metavar="RUN", help="a run or a checkpoint, a folder of diffusers', or a hub name"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; 0.0.0.0 lets in everybody who reaches this machine",
    )
    parser.add_argument(
        "--port", type=PORT, metavar="N", help="the port (default: the first free from 7860 on)"
    )
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def run(options: argparse.Namespace) -> None:
    """Serve the page until the command is interrupted."""
    from tinyldm.model import check_source, load

    check_source(options.run)
    if find_spec("gradio") is None:
        raise InputError("play needs gradio: pip install 'tinyldm[play]'")

    from tinyldm.playground.drawing import check_model
    from tinyldm.playground.page import build
    from tinyldm.playground.serving import listen, own_folder, served

    with listen(options.host, options.port) as at, own_folder():
        model = load(options.run, options.device)
        check_model(model)
        with served(build(model), at) as address:
            say(f"{address}: play with {model.checkpoint.path}; Ctrl-C ends it")
            if not options.no_browser:
                webbrowser.open(address)
            threading.Event().wait()
