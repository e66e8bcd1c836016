"""Conversations and the answers in them."""
