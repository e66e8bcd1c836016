"""Superbloom: run together a language model that none of us could run alone."""

__version__ = "0.1.0"
