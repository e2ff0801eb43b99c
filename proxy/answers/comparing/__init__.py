"""Two policy sets side by side: the calls of a log or a grid answered by both, and who gains and who loses."""
