"""The container image: what goes into it, the list of what went into it, and the command that builds it.

`packages` and `sbom` are pure. `assemble` runs in the build and lays the root file system out; `build` runs where the
image is made, and makes a base image first where none can be pulled.
"""
