"""The swarm page: who holds which blocks."""
