"""What is kept in files: the journal, exported sessions, seed files, certificates, private files."""
