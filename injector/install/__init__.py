"""What `remora install` prints: the objects of a control plane, as plain values, and in which order.

Nothing here reads a clock, a file or a cluster, and nothing is random, so the same arguments give the same bytes. No
key and no certificate is among the objects: the authority makes its own in the cluster, and the injector its own, each
under the least rights that its calls need (`injector.access`).
"""
