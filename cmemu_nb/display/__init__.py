"""How records are shown to people: text, HTML, charts, DataFrames, progress."""
