"""Datasets as volumes of pods: the node's part of the Container Storage Interface. See docs/design/024-csi.md."""
