"""The small models and states that come with the package, and the recipes that made them."""

from rwkvlab.bundled.shelf import bundled
