"""What was installed, and whether it is what was released: signatures, manifests, and what the running process does."""
