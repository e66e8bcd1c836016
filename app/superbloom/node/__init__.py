"""The core composed: the node, its services, and the server process it supervises."""
