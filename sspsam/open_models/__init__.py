"""Other open models than SSP-SAM, behind one small protocol: images and phrases in, masks out."""
