"""Networks that metrics look at images with; weights come from the user."""
