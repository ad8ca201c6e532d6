"""A trained model as one file for other programs: images of any size in, maps of their size out."""
