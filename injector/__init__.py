"""The injector: adds the sidecar to pods. Holds nothing yet but its place; see its README."""
