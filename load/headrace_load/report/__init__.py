"""Reports for people: live progress, tables, pictures and one page of HTML."""
