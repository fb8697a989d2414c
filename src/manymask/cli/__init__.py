"""The command line: each verb is a function whose annotations are its flags; torch is imported when it runs."""
