"""Ways into the world, one module or package each; none knows another."""
