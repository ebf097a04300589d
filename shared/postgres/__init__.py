"""PostgreSQL: the connection pool, migrations, and several writes in one round trip."""
