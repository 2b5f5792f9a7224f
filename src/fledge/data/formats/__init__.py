"""What a record means: each format renders one as text with its trained parts marked."""
