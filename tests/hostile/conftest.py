"""Puts this folder on the path, so that the tables of hostile files can be imported by the tests beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
