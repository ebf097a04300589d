"""The process dies at each named step, as by kill -9, starts again, and nothing is lost or doubled."""
