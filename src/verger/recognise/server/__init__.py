"""`verger serve`: a page for the phone, and the answers behind it."""
