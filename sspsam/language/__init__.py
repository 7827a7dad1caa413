"""Phrases in: which texts are phrases, their tokens, and their text features."""
