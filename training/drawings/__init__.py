"""The demo family: small captioned drawings, any number from one distribution.

A procedure instead of files, so that on `--data=demo` everything a low-shot run is judged by (overfitting, distance to
the true distribution, memorisation, coverage of attributes) can be measured exactly: fresh pictures cost a millisecond.
"""

from training.drawings.captions import caption
from training.drawings.demo_set import DemoSpec, write_demo_set
from training.drawings.family import COLOURS, COUNTS, KINDS, SCENES, SIZES, Attributes, Drawing, draw

__all__ = [
    "COLOURS",
    "COUNTS",
    "KINDS",
    "SCENES",
    "SIZES",
    "Attributes",
    "DemoSpec",
    "Drawing",
    "caption",
    "draw",
    "write_demo_set",
]
