"""Images in: bytes found and decoded, and laid into the two squares that the model sees."""
