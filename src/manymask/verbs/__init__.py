"""What `manymask` can be told to do: each verb a function whose annotations are its flags; torch is imported when it runs."""
