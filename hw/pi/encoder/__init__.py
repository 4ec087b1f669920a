"""H.264 encoders of real boards: that of the kernel where there is one and it works, else software."""
