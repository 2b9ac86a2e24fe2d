"""Tasks ask: chat templates, and prompts with the answers that are wanted."""

from rwkvlab.tasks.task import Task
from rwkvlab.tasks.templates import TEMPLATES, Template, get_template
