"""Records to text, tables and files: the only room that says milli."""
