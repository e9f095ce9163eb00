"""Storage in files: the journal, exported sessions, seed files, certificates and private files."""
