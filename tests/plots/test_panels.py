import subprocess
import sys

import torch

from rwkvlab.plots import plot_pair
from rwkvlab.states.state import State

STATE = State(torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)))


def test_a_figure_draws_itself_for_a_notebook():
    picture = plot_pair(STATE, 2 * STATE, 0, 0)._repr_png_()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_it_is_shown_before_pyplot_was_used():
    code = """if True:
        import torch
        from IPython.core.interactiveshell import InteractiveShell
        from rwkvlab.plots import plot_pair
        from rwkvlab.states.state import State
        shell, state = InteractiveShell.instance(), State(torch.ones(1, 1, 4, 4))
        print(sorted(shell.display_formatter.format(plot_pair(state, state, 0, 0))[0]))
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['image/png', 'text/plain']"
