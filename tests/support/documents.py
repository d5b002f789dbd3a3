"""What the documents say, for tests that hold them against the code."""

import re
import shlex

from tests.support.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language):
    """The contents of README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program):
    """README's `python <program> …` commands, each a list of its arguments."""
    lines = "\n".join(code_blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith(f"python {program} ")]


def training_command(*words):
    """README's only main.py command that has all of `words`."""
    (found,) = (arguments for arguments in commands("main.py") if set(words) <= set(arguments))
    return found
