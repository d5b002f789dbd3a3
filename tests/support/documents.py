"""What the documents say, for tests that hold them against the code."""

import re
import shlex

from tests.support.helpers import ROOT

# Name -> text, README first.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        *sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "README.md"}),
    ]
}


def code_blocks(language, *names):
    """The contents of the code blocks in a language, of the pages named or of all."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for name in names or PAGES for block in pattern.findall(PAGES[name])]


def command_lines(*names):
    """The lines to be typed in a shell, of the pages named or of all; continued ones joined."""
    return "".join(code_blocks("bash", *names)).replace("\\\n", " ").splitlines()


def commands(program, *names):
    """The `python <program> …` commands of the pages named or of all, each a list of its arguments."""
    found = (re.fullmatch(rf"(?:\w+=\S+ )?python {re.escape(program)} (.*)", line) for line in command_lines(*names))
    return [shlex.split(match[1]) for match in found if match]


def training_command(*words):
    """The only main.py command that has all of `words`."""
    (found,) = (arguments for arguments in commands("main.py") if set(words) <= set(arguments))
    return found
