"""What every camera has in common: a process of its own, the pipe to it, its watch, and the software encoder."""
