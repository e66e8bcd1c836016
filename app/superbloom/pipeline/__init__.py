"""The shared model, where network and model meet: the ring, sessions, generation."""
