"""What written replies, answers and likelihoods are worth: metrics as pure functions of texts and numbers."""
