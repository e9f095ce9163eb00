"""Programs with an official SDK, run as real compute modules in processes of their own."""
