"""The node's commands from a terminal."""
