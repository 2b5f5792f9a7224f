"""What can be exported, a file each, and the table of them."""
