"""What a model is worth: loss, perplexity, exact answers, text."""
