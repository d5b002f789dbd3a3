"""The commands of README.md, run as written but shorter: the options that shorten them are added at the end."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FEWER_BATCHES = ["--num-batches", "1"]
# One worker starts faster than four and computes the same.
SMALL = [
    *FEWER_BATCHES, "--meta-batch-size", "2", "--fast-batch-size", "2", "--test-batch-size", "2", "--num-workers", "1",
]  # fmt: skip


def code_blocks(language):
    """The contents of README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program):
    """README's `python <program> …` commands, each a list of its arguments."""
    lines = "\n".join(code_blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith(f"python {program} ")]


TRAINING = {value_of: arguments for arguments in commands("main.py") for value_of in [" ".join(arguments)]}


def training_command(*words):
    """README's only main.py command that has all of `words`."""
    (found,) = (arguments for arguments in commands("main.py") if set(words) <= set(arguments))
    return found
