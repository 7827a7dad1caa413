"""Labelled scenes without end: drawings on backgrounds, phrases about them, and their true masks."""
