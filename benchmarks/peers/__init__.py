"""The same jobs in other frameworks, as their documentation writes them."""
