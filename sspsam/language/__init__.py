"""Phrases in: which texts are phrases, and their tokens."""
