"""One training as several processes: what a rank is told, what it reads, and what ranks exchange."""
