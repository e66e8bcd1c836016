"""The view: a Qt window onto the node."""
