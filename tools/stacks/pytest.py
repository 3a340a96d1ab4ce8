"""pytest: pytest-xdist starts other programs, pytest-forked forks for each test."""

from __future__ import annotations

from stacks.kit import Stack


def stack(setting: str, package: str, module: str, *options: str, forks: str) -> Stack:
    """A test suite with a plugin's options."""
    return Stack(
        name="pytest", setting=setting, app="pytest", needs=("pytest", module), package=package,
        command=lambda port: ["python", "-m", "pytest", *options], forks=forks, reaches=forks == "fork",
        hook="a fixture of scope session, autouse",
    )  # fmt: skip


STACKS = [
    stack("pytest-forked, --forked", "pytest-forked", "pytest_forked", "--forked", forks="fork"),
    stack("pytest-xdist, -n 2", "pytest-xdist", "xdist", "-n", "2", forks="exec"),
]
