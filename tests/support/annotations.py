"""How annotations are checked in every call, axes included: `int` is a `float` too, as for type checkers."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
