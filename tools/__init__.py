"""What authors and `course.py` need; the labs never import it."""
