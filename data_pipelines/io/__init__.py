"""Files: errors, atomic writes, listings, text lines, hashes, tar paths, command-line inputs and progress bars."""
