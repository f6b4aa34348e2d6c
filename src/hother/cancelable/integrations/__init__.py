"""One module for each library that this one works with. None is imported by default."""
