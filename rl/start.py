"""What a program and a worker do first, while little is imported: nothing here may take long or need a package.

To import the package as a library does none of it: the process is the user's.
"""

import codecs
import contextlib
import ctypes
import io
import os
import sys

# What people read where the terminal, a pipe or PYTHONIOENCODING knows no such characters.
PLAIN = {
    "φ": "phi", "θ": "theta", "λ": "lambda", "±": "+-", "−": "-", "…": "...", "×": "x", "·": "*", "→": "->",
    "′": "'", "²": "^2", "∘": "o",
}  # fmt: skip

# What libraries for numbers look at when they are loaded: how many threads of their own they may start.
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def program():
    """Prepare the process for `main.py`, `test.py` or `plot.py`."""
    hide_nothing()
    compute_alone()
    keep_freed_memory()
    # What is closed is opened to nowhere, lest the next file take its number and be printed into.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    codecs.register_error("plain", plain)
    sys.stdout = Output.of(sys.stdout, 1, "standard output")
    sys.stderr = Output.of(sys.stderr, 2, "standard error")


def compute_alone():
    """One thread for each library, unless the user asks for more: workers, and the learner's threads, are enough.

    Before torch is imported. Processes started later inherit it.
    """
    for name in THREAD_COUNTS:
        os.environ.setdefault(name, "1")


def signal_at_parents_end(number):
    """Have Linux send this process a signal when the one that started it ends. Elsewhere nothing happens."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # sys/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)


def keep_freed_memory():
    """Have glibc keep what is freed for the next iteration, which asks for the same again.

    It would return large blocks to the system at once, and the system would clear every page anew: a sixth of a
    Half-Cheetah iteration. Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # malloc.h
    mallopt(arena_max, 1)  # the arenas of threads return their memory whatever the thresholds are
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc accepts
    mallopt(trim_threshold, 2**31 - 1)


def hide_nothing():
    """Look for modules in the folder around this package, and in the one that the user stands in, last of all: a file
    `random.py` or `torch.py` there is not meant.
    """
    last = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    with contextlib.suppress(OSError):  # a folder that was deleted
        last.append(os.getcwd())
    sys.path.sort(key=lambda folder: folder in last)


def path_of(program):
    """The path of `main.py`, `test.py` or `plot.py` as the user, who started one of them, can type it."""
    typed, name = os.path.split(sys.argv[0])
    return os.path.join(typed, program) if name in ("main.py", "test.py", "plot.py") else program


class Output(io.TextIOWrapper):
    """Standard output or standard error: whatever the encoding, it can be written to; an error of writing names it."""

    @classmethod
    def of(cls, stream, number, title):
        """The `Output` instead of Python's own stream, which is None where the file of that number was closed."""
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        buffering = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
        encoding = stream.encoding
        output = cls(stream.detach(), encoding, "plain", **buffering)
        output.title = title
        return output

    def write(self, text):
        """Write text."""
        with self._named():
            return super().write(text)

    def flush(self):
        """Write what is pending."""
        with self._named():
            super().flush()

    @contextlib.contextmanager
    def _named(self):
        try:
            yield
        except OSError as error:
            error.filename = error.filename or self.title
            raise


def plain(error):
    """An error handler of codecs: what an encoding lacks is written in ASCII."""
    told = error.object[error.start : error.end]
    return "".join(PLAIN.get(character) or ascii(character)[1:-1] for character in told), error.end
