"""Images and phrases through the model: batches, memory, masks with their quality signals."""
