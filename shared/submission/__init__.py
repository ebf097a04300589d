"""What a submission must be. Intake accepts by these rules; workflow checks a procedure's example by them. Pure.

`form`: fields and their shapes; `subject`: the `subject` field, by the procedure's schema; `rules`: all of it together;
`versions`: which version of a procedure is in force.
"""
