"""The bootstrap: Python imports it at start, because the recorder put its folder first on PYTHONPATH.

It lets another `sitecustomize` have its turn, and waits for torch, and for libraries that fit trees. A script
that never imports one of them pays for this file only, so it is small and imports nothing that a bare
interpreter has not loaded.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_OBSERVER = "_tscope_observer"
# The modules that are waited for, and the observer's module that is started when they are there.
_WAITED = {
    "torch": "hooks",
    "sklearn.ensemble._gb": "trees",
    "sklearn.ensemble._forest": "trees",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": "trees",
    "xgboost.training": "trees",
    "xgboost.sklearn": "trees",
    "lightgbm.engine": "trees",
}


def _mark(stage: str) -> None:
    """Leave an empty file that tells the recorder how far this process got."""
    session = os.environ.get("TSCOPE_SESSION")
    if session:
        path = os.path.join(session, "%s.%d" % (stage, os.getpid()))
        try:  # noqa: SIM105 - contextlib is not loaded yet
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError:
            pass  # the recording is over and its folder gone; the marks only serve its last message


class _Finder:
    """Finds what is waited for through the other finders, and starts the observer once it is there."""

    def __init__(self, waited: Dict[str, str]) -> None:
        self.waited = waited

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.waited:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                break
        else:
            return None
        # Whoever only asks whether a module exists calls find_spec too, so that all waits for exec_module.
        loader = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is not None:

            def exec_module(module: Any) -> None:
                part = self.waited.pop(name, None)
                if not self.waited and self in sys.meta_path:
                    sys.meta_path.remove(self)
                loader.__dict__.pop("exec_module", None)
                execute(module)
                if part is not None:
                    _mark("torch" if name == "torch" else "trees")
                    _start(part, module)

            try:  # noqa: SIM105 - contextlib is not loaded yet
                loader.exec_module = exec_module
            except AttributeError:
                pass  # a loader with slots: the mark of the module stays away, which the recorder reports
        return spec


def _start(part: str, module: Any) -> None:
    try:
        from importlib.util import module_from_spec, spec_from_file_location

        if _OBSERVER not in sys.modules:
            folder = os.path.join(_FOLDER, _OBSERVER)
            spec = spec_from_file_location(
                _OBSERVER, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
            )
            if spec is None or spec.loader is None:
                raise ImportError("no loader for " + folder)
            package = module_from_spec(spec)
            sys.modules[_OBSERVER] = package
            spec.loader.exec_module(package)
        if part == "hooks":
            from _tscope_observer.hooks import start  # type: ignore[import-not-found]

            start()
        else:
            from _tscope_observer.trees import observe  # type: ignore[import-not-found]

            observe(module)
    except Exception as error:
        # Whatever is wrong with the observer is not the script's problem.
        sys.stderr.write(
            "tscope: the observer could not start, the run is not recorded (%s: %s)\n"
            % (type(error).__name__, " ".join(str(error).split()))
        )


def _chain() -> None:
    """Run the `sitecustomize` that this one hides, under its own name, as Python would have."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _FOLDER]
    finder = next((f for f in sys.meta_path if getattr(f, "__name__", "") == "PathFinder"), None)
    spec: Optional[Any] = None if finder is None else finder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    # What importlib.util offers under the same name, but already loaded.
    module = sys.modules["_frozen_importlib"].module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if os.environ.get("TSCOPE_SOCKET"):
    _mark("hello")
    sys.meta_path.insert(0, _Finder(_WAITED))
_chain()
