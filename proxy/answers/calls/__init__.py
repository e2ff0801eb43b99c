"""Calls made up from what rules name: one that fits each rule, those beside it, and the grid of all."""
