"""What was written on this machine and is not in its repository yet."""
