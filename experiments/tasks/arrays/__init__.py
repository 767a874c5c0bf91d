"""Arrays, tables and sounds of users."""
