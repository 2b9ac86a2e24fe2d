"""States hold: the value, its card, names, files, shelves and blends."""

from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.files import load_state, save_state
from rwkvlab.states.names import NameCard, parse_name
from rwkvlab.states.state import State, check_fits
