"""Decides what to do: desired and observed state in, actions out; pure."""
