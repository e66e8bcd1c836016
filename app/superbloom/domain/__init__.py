"""What is true and what should happen: pure values and decisions, standard library only."""
