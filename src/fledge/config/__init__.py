"""The recipe: typed, frozen, and strict about every key."""
