"""What travels on the wire, read and checked without sockets: JSON, function schemas, queries, results, ids."""
