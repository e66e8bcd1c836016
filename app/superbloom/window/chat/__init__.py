"""The chat page: conversations, transcript, composer."""
