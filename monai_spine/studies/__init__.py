"""One adapter per data set: each writes the prepared layout that training reads."""
