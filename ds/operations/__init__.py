"""Doing what operations ask: loads, packs, migrations and processes, in the pods of a cluster and on one machine."""
