"""What a program does first, while little is imported: nothing here may take long or need a package."""

import codecs
import contextlib
import io
import os
import sys

# What people read where the terminal, a pipe or PYTHONIOENCODING knows no such characters.
PLAIN = {
    "φ": "phi", "θ": "theta", "λ": "lambda", "±": "+-", "−": "-", "…": "...", "×": "x", "·": "*", "→": "->",
    "′": "'", "²": "^2", "∘": "o",
}  # fmt: skip


def program():
    """Prepare the process for `main.py`, `test.py` or `plot.py`."""
    hide_nothing()
    # What is closed is opened to nowhere, lest the next file take its number and be printed into.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    codecs.register_error("plain", plain)
    sys.stdout = Output.of(sys.stdout, 1, "standard output")
    sys.stderr = Output.of(sys.stderr, 2, "standard error")


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
