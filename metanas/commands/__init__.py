"""What the commands do, a module each. Nothing is imported here: `doctor` must start where a library is broken."""
