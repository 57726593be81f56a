"""Grades the exercises: each by itself, in words that say what is wrong.

Each check calls the functions of one exercise alone, with levels, schedules and denoisers of its
own, so that no exercise waits for another. What it compares with are closed forms, numbers worked
out in plain Python, and data for which the whole flow is known. Imports within it are relative: a
kit has this folder beside its own copy of the library.
"""
