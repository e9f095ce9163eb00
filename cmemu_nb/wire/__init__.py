"""The data of the wire protocol, read and checked without sockets: JSON, function schemas, queries, results and ids."""
