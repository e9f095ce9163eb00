"""Functions of a notebook that replicas on the workers of a Dask cluster run."""
