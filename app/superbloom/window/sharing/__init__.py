"""The share page: what this computer gives."""
