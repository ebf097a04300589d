"""The rules for a submission. Intake checks submissions by them, workflow the example of a procedure. Pure.

`form`: fields and their shapes; `subject`: the `subject` field, by the procedure's schema; `rules`: all of it together;
`versions`: which version of a procedure is in force.
"""
