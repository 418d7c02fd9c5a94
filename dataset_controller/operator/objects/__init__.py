"""What the operator makes, as plain data; pure."""
