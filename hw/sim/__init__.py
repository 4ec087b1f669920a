"""The simulated board: the same devices without hardware, with the physics in and hands for the test."""
