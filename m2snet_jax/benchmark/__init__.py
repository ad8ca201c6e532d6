"""The speed of each part of the program on this machine."""
