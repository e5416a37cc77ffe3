from __future__ import annotations

import re
from pathlib import Path

import pytest
from tscope_tui.keys import BOTH, KEYS, action_of, keys_of, markdown
from tscope_tui.stages.browser import BrowserStage
from tscope_tui.stages.run import RunStage
from tscope_tui.terminal.app import TscopeApp

DOCS = Path(__file__).parents[2] / "docs" / "browsing.md"
# What the program itself does, whatever stage is shown.
OWN = {"quit", "mouse", "theme"}
RUN_KEYS = """
left step:-1
shift+right step:10
left_square_bracket event:-1
g go
space play
f follow
plus zoom:2
minus zoom:0.5
0 fit
h pan:-1
l pan:1
L log_y
X log_x
x crosshair
m mark_range
z maximise
tab focus:1
escape back
question_mark help
r repro
e export
y yank
a analyse
M mouse
T theme
q quit
n worst:1
N worst:-1
home first
end last
1 view:overview
3 view:effective
4 view:kernel
5 view:averaging
6 view:layers
w layer:1
W layer:-1
"""


@pytest.mark.parametrize("scope", BOTH)
def test_no_key_has_two_meanings(scope):
    names = [name for key in keys_of(scope) for name in key.keys]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("scope", "stage"), [("run", RunStage), ("browser", BrowserStage)])
def test_every_action_exists(scope, stage):
    for key in keys_of(scope):
        name = key.action.partition(":")[0]
        assert name in OWN or callable(getattr(stage, f"do_{name}", None)), key


@pytest.mark.parametrize("stage", [RunStage, BrowserStage])
def test_no_action_is_without_a_key(stage):
    scope = stage.scope
    bound = {key.action.partition(":")[0] for key in keys_of(scope)}
    assert {name[3:] for name in dir(stage) if name.startswith("do_")} <= bound


def test_the_keys_of_the_design_are_there():
    wanted = dict(line.split() for line in RUN_KEYS.strip().splitlines())
    assert {name: action_of("run", name) for name in wanted} == wanted
    browser = {"slash": "filter", "s": "sort", "p": "pin", "space": "mark", "d": "doctor", "enter": "enter"}
    assert {name: action_of("browser", name) for name in browser} == browser


def test_the_documentation_has_the_table_of_the_code():
    text = DOCS.read_text(encoding="utf-8")
    table = re.search(r"<!-- keys -->\n(.*?)<!-- /keys -->", text, re.S)
    assert table is not None
    assert table[1] == markdown()


def test_the_palette_offers_every_key(tmp_path):
    commands = list(TscopeApp([tmp_path]).get_system_commands(None))
    assert len(commands) == len([key for key in KEYS if "browser" in key.scopes])
