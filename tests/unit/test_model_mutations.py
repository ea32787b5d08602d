"""Every mutation of the model can be made: its text is in the tree, once."""

from __future__ import annotations

import pytest

from tests.model.mutate import ROOT, Mutation, all_mutations


@pytest.mark.parametrize("mutation", all_mutations(), ids=lambda mutation: mutation.name)
def test_its_text_occurs_exactly_once(mutation: Mutation) -> None:
    assert mutation.misfits(ROOT) == []
    assert mutation.what
    assert all(edit.old != edit.new for edit in mutation.edits)
