"""Pictures out: masks over their image, the maps that explain them, and labels that stay readable."""
