"""PostgreSQL: the connection pool, transient errors, migrations, and several writes in one round trip."""
