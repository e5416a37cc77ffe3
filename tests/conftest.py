"""How the tests are shared between processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def _fixtures(item: pytest.Item) -> Iterator[pytest.FixtureDef[object]]:
    """The fixtures of ours that a test uses, itself or through others."""
    known = item.session._fixturemanager
    for name in getattr(item, "fixturenames", ()):
        for fixture in known.getfixturedefs(name, item) or ():
            if fixture.baseid.startswith("tests"):
                yield fixture


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a fixture of their module in one process (`--dist loadgroup`).

    Such a fixture is often a recorded run: apart from each other its tests would record it twice.
    """
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        if any(fixture.scope == "module" for fixture in _fixtures(item)):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
