"""The capture rules of a pod: what they are, how they get into the kernel, and whether they work."""
