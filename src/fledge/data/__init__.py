"""The data room: sources to token stores, with every row and token accounted for."""
