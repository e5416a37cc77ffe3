import sys
from pathlib import Path

# fake_parent.py and observed_scripts.py are shared with the tests of the recorder's own side.
sys.path.insert(0, str(Path(__file__).parents[1]))
