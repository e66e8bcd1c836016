"""What makes a processor compute a model fast: forms of linear layers, and numbers of threads."""
