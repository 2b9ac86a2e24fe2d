"""rwkvlab: mount, see, compare, blend and tune the initial hidden state of an RWKV model."""

from rwkvlab.errors import RwkvLabError
from rwkvlab.model.engine import Model, load_model
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.state import State
