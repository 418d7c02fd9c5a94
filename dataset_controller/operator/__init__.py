"""The control plane of a cluster: what is declared in Kubernetes is planned here, and done through its API.

`objects` builds what is applied, `planning` decides, both pure; the rest is the thin shell around them.
"""
