"""SQLite and PostgreSQL: one writer thread with group commit, readers, migrations, leases."""
