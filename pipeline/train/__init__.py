"""Training on a cluster: several processes through Ray Train, and image-tower features computed once."""
