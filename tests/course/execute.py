"""python execute.py NOTEBOOK FOLDER RESULT: executes a notebook in a folder, as Jupyter does.

The kernel is a process that was forked at the start. In a fork of tests/fresh.py it finds torch
imported, and still imports ipykernel and all of ours by itself.
"""

import json
import os
import runpy
import signal
import sys
import time


class Forked:
    """A forked process as jupyter_client sees one, which sends it what to run."""

    stdin = stdout = stderr = None

    def __init__(self):
        asked, self.asking = os.pipe()
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()  # signals are sent to the group of a kernel
            os.close(self.asking)
            with os.fdopen(asked) as stream:
                self.words, self.environment, self.folder = json.load(stream)
        else:
            os.close(asked)

    def launch(self, words, env=None, cwd=None, **_):
        """What takes the place of jupyter_client's launch_kernel."""
        parent = {"JPY_PARENT_PID": str(os.getpid())}
        with os.fdopen(self.asking, "w") as stream:
            json.dump([words, {**(env or os.environ), **parent}, str(cwd or os.getcwd())], stream)
        return self

    def become(self):
        """Be the kernel: what `python -m ipykernel_launcher ...` does."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        sys.path[0] = os.getcwd()
        _python, *options = self.words
        module = options[options.index("-m") + 1]
        sys.argv = [module, *options[options.index(module) + 1 :]]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    def poll(self):
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        while self.poll() is None:
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def execute(source, folder, result, kernel):
    """Execute a notebook and write it with its outputs."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.provisioning import local_provisioner
    from nbclient import NotebookClient

    local_provisioner.launch_kernel = kernel.launch
    native = KernelSpecManager(kernel_dirs=[])  # this Python, installed as a kernel nowhere
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=native)
    notebook = nbformat.read(source, as_version=4)
    where = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=300, km=manager, resources=where).execute()
    nbformat.write(notebook, result)


if __name__ == "__main__":
    kernel = Forked()
    if kernel.pid:
        execute(*sys.argv[1:], kernel)
    else:
        kernel.become()
