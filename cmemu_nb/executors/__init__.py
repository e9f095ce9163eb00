"""The executors, which run the functions of jobs: in cells, in launched programs, and on Dask clusters."""
