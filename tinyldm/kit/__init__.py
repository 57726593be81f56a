"""The assignment kit: a copy of the library with blanks, instructions, and a grader."""
