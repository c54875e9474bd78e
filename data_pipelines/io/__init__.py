"""Files: errors, directory listings, atomic writes, tar paths and progress bars."""
