"""Records: files and data frames read row by row into validated items, interactions and users."""
