"""Tasks ask: chat templates, and prompts with the answers that are wanted, built in or from files."""

from rwkvlab.tasks.files import load_task
from rwkvlab.tasks.styles import STYLES, style_task
from rwkvlab.tasks.task import Example, Task, text_task
from rwkvlab.tasks.templates import TEMPLATES, Template, get_template
