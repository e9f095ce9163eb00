"""Functions of a notebook, run as replicas on the workers of a Dask cluster."""
