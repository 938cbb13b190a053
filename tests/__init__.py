"""The checker that holds every call of the library to its annotations during the tests; int passes for float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
