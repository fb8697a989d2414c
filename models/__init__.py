"""The model folders that manymask ships, as package data: manymask finds them by name."""
