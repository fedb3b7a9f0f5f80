"""A budget is a count or a share; every way to write it gives the same value."""

import pytest

from mustdrop.budget import Budget


@pytest.mark.parametrize(
    ("written", "budget", "name"),
    [
        (128, Budget(tokens=128), "t128"),
        ("128", Budget(tokens=128), "t128"),
        ("t128", Budget(tokens=128), "t128"),
        ("t64.5", Budget(tokens=64.5), "t64.5"),
        (64.0, Budget(tokens=64), "t64"),
        (0, Budget(tokens=0), "t0"),
        ("22.2%", Budget(share=0.222), "s22.2"),
        ("100 %", Budget(share=1.0), "s100"),
        ("640/2880", Budget(share=640 / 2880), "s22.22"),
    ],
)
def test_a_budget_is_read_as_users_write_it(written, budget, name):
    assert Budget.parse(written) == budget
    assert budget.name == name and Budget.parse(budget) is budget


def test_the_entry_of_a_resolved_config_is_read():
    for budget in (Budget(tokens=128), Budget(share=0.222)):
        entry = {"name": budget.name, "tokens": budget.tokens, "share": budget.share}
        assert Budget.parse(entry) == Budget.read(entry) == budget
    assert Budget.read(None) is None


def test_none_is_no_budget():
    assert Budget.parse("none") is None and Budget.parse(None) is None


@pytest.mark.parametrize(
    "written", ["t", "many", "-3", -3, "5/0", True, "12.5.1", "t12%", "", [128]]
)
def test_what_is_no_budget_is_refused(written):
    with pytest.raises(ValueError, match="budget must be a count of tokens"):
        Budget.parse(written)


def test_a_share_is_at_most_all_and_a_budget_has_exactly_one_measure():
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.01"):
        Budget.parse("101%")
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.2"):
        Budget.parse("6/5")
    for given in ({}, {"tokens": 3, "share": 0.1}):
        with pytest.raises(ValueError, match="a count of tokens or a share"):
            Budget(**given)
    for wrong in (float("nan"), float("inf"), -1, True):
        with pytest.raises(ValueError, match="tokens must be a count, 0 or more"):
            Budget(tokens=wrong)


def test_a_share_follows_what_entered_and_a_count_does_not():
    assert [Budget(share=0.25).target(n) for n in (576, 2880)] == [144, 720]
    assert [Budget(tokens=128).target(n) for n in (576, 2880)] == [128, 128]
