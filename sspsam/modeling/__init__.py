"""The model, one file a part: CLIP towers, SSP encoder, SAM, and the whole."""
