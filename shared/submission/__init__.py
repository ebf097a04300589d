"""What a submission must be: intake takes one by these rules, workflow promises an example that fits them. Pure.

`form`: fields and their shapes; `subject`: what it is about, by the procedure's schema; `rules`: all of it together.
"""
