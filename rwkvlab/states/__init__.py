"""States hold: the value, its card, names, files, shelves and blends."""

from rwkvlab.states.ai00 import read_ai00, write_ai00
from rwkvlab.states.blend import lerp, mix, scale, slerp, splice, truncate
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.fits import check_fits
from rwkvlab.states.names import NameCard, parse_name
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
