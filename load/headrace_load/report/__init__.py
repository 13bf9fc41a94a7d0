"""What people look at: live progress, tables, pictures and one page of HTML."""
