"""The threads of the client's half of a model: they wait for work as a node's do.

This must be imported before torch, which reads only once how its threads shall wait.
"""

from __future__ import annotations

import sys

from superbloom.machine.processor import share_cores_politely

assert "torch" not in sys.modules, "torch was imported before it was told how to wait"
share_cores_politely()
