"""All ranks of a run compute the same thing, or none does."""

import dataclasses
import hashlib
import importlib.util
import socket
from pathlib import Path

from rl import envs
from rl.config import NEUTRAL, Config, default_workers, flag_of, parse_given
from rl.envs import adapter
from rl.errors import UserError
from rl.run import resume
from rl.run.provenance import versions

PACKAGE = Path(__file__).resolve().parents[1]
UNKNOWN = "unknown"  # a fact that a rank cannot tell


def choose(command_line, ranks):
    """Read main.py's command line on all ranks. What rank 0 makes of it holds; the others need none of its files.

    Args:
        command_line: list of str; None: the process's own.
        ranks: `rl.ranks.Ranks`, joined.

    Returns:
        (`Config`, the `Folders` of the run to resume on rank 0, else None; the environment's options)

    Raises:
        UserError: as `resume.choose`; or the ranks have other options, code, packages or files than rank 0.
    """
    if ranks.size == 1:
        config, folders = resume.choose(command_line)
        return config, folders, None
    given, resumed = parse_given(command_line)
    compare(ranks, of_options(given, resumed) | of_code())
    if resumed == "auto":
        check_logs(ranks, Config(**given))
    config = folders = options = None
    if ranks.rank == 0:
        config, folders = resume.choose(command_line)
        options = envs.options(config.env_name, config.env_config_path or None, config.seed, config.horizon or None)
    config, options = _told(ranks, config, options)
    if ranks.rank > 0:
        # How it computes, a rank may decide for itself.
        own = {name: value for name, value in given.items() if name in NEUTRAL}
        config = dataclasses.replace(config, **{"num_workers": default_workers()} | own)
    return config, folders, options


def check_logs(ranks, config):
    """Find out whether rank 0 is where the run to go on with lies: a job that is started anew may have put another
    machine first.

    Raises:
        UserError: it lies elsewhere; nothing begins anew because of that.
    """
    folder = resume.newest(config)
    found = ranks.gather((socket.gethostname(), folder and str(folder)))
    for rank, (machine, theirs) in enumerate(found or ()):
        if theirs and not folder:
            raise UserError(
                f"--resume auto: the run to go on with, {theirs}, is on {machine}, which is rank {rank}, and rank 0 "
                "has none; expected --logdir and --savedir on a file system that all machines share, or the same "
                "machine first"
            )


def tell(experiment):
    """On rank 0: have the others build the same `Setup`.

    Raises:
        UserError: their code, packages or environment are not those of rank 0.
    """
    if experiment.ranks.size == 1:
        return
    compare(experiment.ranks, of_code())
    _told(experiment.ranks, experiment.config, experiment.setting.env_options)


def listen(ranks):
    """On other ranks: (`Config`, the environment's options) of rank 0's experiment."""
    compare(ranks, of_code())
    return _told(ranks)


def _told(ranks, config=None, options=None):
    """(`Config`, the environment's options) of rank 0, once all have the same environment."""
    (config, options), _ = ranks.broadcast((config, options))
    compare(ranks, of_environment(config.env_name))
    return config, options


def compare(ranks, facts):
    """Find out whether all ranks have the same facts.

    Args:
        ranks: `rl.ranks.Ranks`, joined.
        facts: name -> value of this rank.

    Raises:
        UserError: on rank 0, naming the first rank that differs, its machine, and how.
    """
    found = ranks.gather((socket.gethostname(), facts))
    for rank, (machine, theirs) in enumerate(found or ()):
        differences = [
            f"{name} {theirs.get(name, 'none')}, rank 0 has {facts.get(name, 'none')}"
            for name in sorted(facts.keys() | theirs.keys())
            if facts.get(name) != theirs.get(name) and UNKNOWN not in (facts.get(name), theirs.get(name))
        ]
        if differences:
            raise UserError(f"rank {rank} on {machine} differs from rank 0: {'; '.join(differences)}")


def of_options(given, resumed):
    """The options of a command line that decide a result; of the environment's file the content, where it is there."""
    options = given if resumed not in (None, "auto") else dataclasses.asdict(Config(**given))
    fields = Config.__dataclass_fields__
    facts = {flag_of(fields[name]): value for name, value in options.items() if name not in NEUTRAL}
    path = facts.pop("--env-config-path", None)
    if path:
        known = Path(path).is_file()
        facts["--env-config-path, a file of SHA-256"] = digest(Path(path).read_bytes()) if known else UNKNOWN
    if resumed is not None:
        facts["--resume"] = resumed
    return facts


def of_code():
    """The versions of the packages, and this code by its content."""
    content = [str(path.relative_to(PACKAGE)).encode() + path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))]
    return versions() | {"code of SHA-256": digest(b"".join(content))}


def of_environment(name):
    """A user's own environment by the content of its module."""
    module, colon, _ = name.partition(":")
    if not colon:
        return {}
    try:
        adapter.look_here()
        content = Path(importlib.util.find_spec(module).origin).read_bytes()
    except (ImportError, AttributeError, TypeError, OSError):
        return {f"{module} of SHA-256": "none"}
    return {f"{module} of SHA-256": digest(content)}


def digest(content):
    """The beginning of the SHA-256 of bytes, enough to tell two contents apart."""
    return hashlib.sha256(content).hexdigest()[:12]
