"""The database: tables, the transactions on them, one data access object a table."""
