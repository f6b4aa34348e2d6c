"""Words and primitives: what every other layer is built from, and what knows of none of them."""
