"""Claims of speed, each a script that prints a table: metanas and a named peer, interleaved in one run."""
