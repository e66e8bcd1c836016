"""The share of this computer: the server process, and what watches over it."""
