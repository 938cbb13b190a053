"""On a real chat model the contract holds."""

import pytest

from steerlens.contract.check import Subject, examine
from steerlens.contract.checks import CHECKS

pytestmark = pytest.mark.smollm2

QUICK = ("logits", "gradients", "generation", "shared prefix", "skipped blocks", "vector file", "other weights", "BOS",
         "system role", "whole chat", "thinking")  # fmt: skip


@pytest.fixture(scope="module")
def subject(smollm2):
    return Subject(smollm2)


@pytest.mark.parametrize("name", QUICK)
def test_the_contract_holds(name, subject):
    (outcome,) = examine(subject, [check for check in CHECKS if check.name == name])
    assert outcome.status == "holds", f"{outcome.measurement}: {outcome.note}"
