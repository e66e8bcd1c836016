"""Where it is kept: folders, settings, conversations, secrets, model files, logs."""
