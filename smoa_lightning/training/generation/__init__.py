"""Replies of a trained adapter: to prompts, to the rows of a file, and in a conversation."""
