"""What results look like: HTML, figures, and tables for the terminal."""
