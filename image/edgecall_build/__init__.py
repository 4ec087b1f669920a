"""What `image/build` does in Python: the standard library's alone, run beside the image and never in it."""
