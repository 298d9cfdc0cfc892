"""One module for each migration. What was released is never changed again."""
