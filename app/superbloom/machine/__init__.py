"""This computer: its locks, devices and memory."""
